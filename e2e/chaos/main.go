//go:build linux

// Chaos runs replicas of simple-oauth2 on a cluster of etcd, and breaks the
// machines under them while clients log in, use, revoke and introspect:
//
//	cd e2e && go run ./chaos -for 5m -seed 7 -replicas 3 -members 3
//
// It kills, pauses and restarts members and replicas, moves the leader,
// compacts and defragments. Between each replica and each member is a relay that
// delays, holds back and cuts connections, and delivers late what was sent. What
// it does follows from the seed, but not which request it happens to hit.
//
// It checks what a user was promised, and nothing else:
//
//   - A token from a login is not refused before it is revoked or expires.
//   - From a second after its revocation was confirmed, a token works on no
//     replica that says it can reach etcd. A replica that was paused or started
//     has a second from when it runs.
//   - A token does not work more than a second after it has expired.
//   - No replica dies, leaks goroutines or fails internally (any 5xx but 503), or
//     logs an error other than that it could not store or revoke a token.
//
// An answer that a concurrent request may have changed is no proof, and is not
// counted. After the last act everything is repaired, and all tokens are checked
// until they have expired. It exits with 0 if each promise was kept, with 1 if
// one was broken, and with 2 if the run is inconclusive. It needs Linux, for the
// signal that ends its processes when it ends itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	total             time.Duration
	seed              uint64
	replicas, members int
	ttl               time.Duration
	sessions          int
	binary            string
}

func main() {
	var o options
	flag.DurationVar(&o.total, "for", 5*time.Minute, "how long things are done to the cluster; mending it and watching the last tokens end takes some -token-ttl more")
	flag.Uint64Var(&o.seed, "seed", 7, "what is done follows from it")
	flag.IntVar(&o.replicas, "replicas", 3, "replicas of the service")
	flag.IntVar(&o.members, "members", 3, "members of etcd")
	flag.DurationVar(&o.ttl, "token-ttl", 15*time.Second, "lifetime of a token, in whole seconds")
	flag.IntVar(&o.sessions, "sessions", 20, "clients at a time")
	flag.StringVar(&o.binary, "binary", "", "the service (default: built from ..)")
	flag.Parse()
	if flag.NArg() > 0 || o.replicas < 1 || o.members < 1 || o.sessions < 1 || o.ttl < 5*time.Second || o.ttl%time.Second != 0 {
		fmt.Fprintln(os.Stderr, "chaos: no arguments but flags; at least one replica, member and session; a -token-ttl of at least 5s, in whole seconds")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	kept, err := run(ctx, o)
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	case !kept:
		os.Exit(1)
	}
}

// run is the program. It says whether all promises were kept.
func run(ctx context.Context, o options) (kept bool, err error) {
	dir, err := os.MkdirTemp("", "chaos")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	if o.binary == "" {
		o.binary = filepath.Join(dir, "simple-oauth2")
		build := exec.CommandContext(ctx, "go", "build", "-o", o.binary, ".")
		build.Dir = ".."
		if text, err := build.CombinedOutput(); err != nil {
			return false, fmt.Errorf("go build in ..: %w\n%s", err, text)
		}
	}

	relays, stopRelays := context.WithCancel(context.Background())
	defer stopRelays()
	record := newRecord()
	cluster, err := newCluster(relays, dir, o, record)
	if err != nil {
		return false, err
	}
	defer cluster.killAll()
	transport := &http.Transport{MaxIdleConnsPerHost: 2 * o.sessions}
	late := &lateness{}
	go late.measure()
	c := &clients{replicas: cluster.replicas, ttl: o.ttl, record: record, late: late, tokens: make(map[*token]bool), http: &http.Client{Transport: transport}}
	if err := c.allWell(ctx); err != nil {
		return false, err
	}

	fmt.Printf("seed %d: %v of acts, %d members, %d replicas, tokens of %v\n", o.seed, o.total, o.members, o.replicas, o.ttl)
	record.began = time.Now()
	acting, stopActs := context.WithTimeout(ctx, o.total)
	defer stopActs()
	var sessions, askers sync.WaitGroup
	for range o.sessions {
		sessions.Go(func() { c.session(acting) })
	}
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	sessions.Go(func() { c.keepGate(acting) })
	for i := range o.replicas {
		askers.Go(func() { c.again(watching, i) })
	}
	cluster.play(acting, plan(o.seed, o.total, o.members, o.replicas), record)
	sessions.Wait()
	if err := c.allWell(ctx); err != nil {
		record.breaks(recovered, "replicas", "", err.Error())
	}
	for c.left() > 0 && ctx.Err() == nil {
		wait(ctx, time.Now().Add(100*time.Millisecond))
	}
	stopWatching()
	askers.Wait()
	if ctx.Err() != nil {
		return false, errors.New("interrupted")
	}
	transport.CloseIdleConnections()
	time.Sleep(time.Second)
	cluster.countGoroutines(record)
	cluster.killAll()
	cluster.readLogs(record)
	record.print(o, late, dir)
	if record.revoked == 0 || record.checks[true] == 0 || record.checks[false] == 0 {
		return false, errors.New("too little was answered to say anything")
	}
	return len(record.broken) == 0, nil
}

// allWell waits until each replica says that it is healthy.
func (c *clients) allWell(ctx context.Context) error {
	deadline := time.Now().Add(30 * time.Second)
	for i, r := range c.replicas {
		for !c.reachesEtcd(i) {
			if time.Now().After(deadline) {
				return fmt.Errorf("%s is not healthy after 30s without an act", r.name)
			}
			if wait(ctx, time.Now().Add(20*time.Millisecond)); ctx.Err() != nil {
				return errors.New("interrupted")
			}
		}
	}
	return nil
}

// play carries out the plan, and returns when everything is undone.
func (c *cluster) play(ctx context.Context, acts []act, r *record) {
	began := time.Now()
	var inHand sync.WaitGroup
	for _, a := range acts {
		if wait(ctx, began.Add(a.at)); ctx.Err() != nil {
			break
		}
		r.note(func() {
			r.acts = append(r.acts, a)
			r.kinds[a.kind]++
		})
		inHand.Go(func() {
			if err := c.do(ctx, a); err != nil {
				r.note(func() { r.failed[a.kind]++ })
			}
		})
	}
	<-ctx.Done()
	inHand.Wait()
}

// A goroutine in the stack dump of SIGQUIT, and what made it.
var (
	goroutine = regexp.MustCompile(`(?m)^goroutine [1-9]\d* .*\[`)
	creator   = regexp.MustCompile(`(?m)^created by (\S+)`)
)

// mostGoroutines is how many a replica at rest may have: two for each idle
// connection to etcd, 16 per member, and some of its own.
func mostGoroutines(members int) int { return 30 + 2*16*members }

// countGoroutines ends the replicas with SIGQUIT, on which the Go runtime writes
// all stacks to standard error.
func (c *cluster) countGoroutines(r *record) {
	for _, replica := range c.replicas {
		before, _ := os.ReadFile(replica.log)
		replica.end(syscall.SIGQUIT)
		after, err := os.ReadFile(replica.log)
		if err != nil {
			r.notes = append(r.notes, err.Error())
			continue
		}
		os.WriteFile(replica.log, before, 0o600) // the stacks are long, and not part of the log
		n := len(goroutine.FindAll(after[len(before):], -1))
		r.notes = append(r.notes, fmt.Sprintf("%s ended with %d goroutines", replica.name, n))
		if n > mostGoroutines(len(c.members)) {
			r.breaks(leak, replica.name, "", fmt.Sprintf("%d, where %d at most are in order:\n%s", n, mostGoroutines(len(c.members)), creators(after[len(before):])))
		}
	}
}

// readLogs looks for what no replica should have logged.
func (c *cluster) readLogs(r *record) {
	for _, replica := range c.replicas {
		text, err := os.ReadFile(replica.log)
		if err != nil {
			r.notes = append(r.notes, err.Error())
			continue
		}
		if lines := unexpectedLines(string(text)); len(lines) > 0 {
			const most = 10
			what := fmt.Sprintf("%d lines:\n%s", len(lines), strings.Join(lines[:min(len(lines), most)], "\n"))
			r.breaks(unexpected, replica.name, "", what)
		}
	}
}

// creators returns what created the goroutines in a dump, the most frequent first.
func creators(dump []byte) string {
	count := make(map[string]int)
	for _, by := range creator.FindAllSubmatch(dump, -1) {
		count[string(by[1])]++
	}
	names := slices.SortedFunc(maps.Keys(count), func(a, b string) int { return count[b] - count[a] })
	var lines strings.Builder
	for _, name := range names[:min(len(names), 8)] {
		fmt.Fprintf(&lines, "  %d by %s\n", count[name], name)
	}
	return lines.String()
}

// print prints the report.
func (r *record) print(o options, late *lateness, dir string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Println("acts:")
	for _, w := range weights {
		fmt.Printf("%6d %s", r.kinds[w.kind], w.kind)
		if r.failed[w.kind] > 0 {
			fmt.Printf(" (%d of them refused)", r.failed[w.kind])
		}
		fmt.Println()
	}
	fmt.Println("answers:")
	for _, path := range slices.Sorted(maps.Keys(r.answers)) {
		fmt.Printf("%12s", path)
		for _, status := range slices.Sorted(maps.Keys(r.answers[path])) {
			name := fmt.Sprint(status)
			if status == 0 {
				name = "none"
			}
			fmt.Printf("  %s: %d", name, r.answers[path][status])
		}
		fmt.Println()
	}
	fmt.Printf("%d tokens given, %d revocations confirmed; found alive %d times and refused %d times\n", r.given, r.revoked, r.checks[true], r.checks[false])
	fmt.Printf("slowest login %v, slowest revocation %v (at a replica that was not paused)\n", r.slowest["login"].Round(time.Millisecond), r.slowest["revocation"].Round(time.Millisecond))
	fmt.Printf("this program was late by %v at most; %d answers were left out for that\n", late.worst.Round(time.Millisecond), r.leftOut)
	for _, note := range r.notes {
		fmt.Println(note)
	}
	const most = 10
	all := r.inOrder()
	for i, b := range all {
		if i == most {
			fmt.Printf("\n… and %d more\n", len(all)-most)
			break
		}
		fmt.Printf("\nBROKEN with seed %d, after %.1fs, seen %d times: %s (%s): %s\n", o.seed, b.at.Sub(r.began).Seconds(), b.times, b.promise, b.who, b.what)
		for _, a := range r.acts {
			if at := r.began.Add(a.at); at.Before(b.at) && at.Add(a.lasts).After(b.at.Add(-around)) {
				fmt.Println("  act", a)
			}
		}
		for _, line := range linesAround(filepath.Join(dir, strings.ReplaceAll(b.who, " ", "")), b.at) {
			fmt.Println("  log", line)
		}
	}
	if len(all) == 0 {
		fmt.Println("all promises were kept")
	} else {
		fmt.Printf("\n%d promises were broken\n", len(all))
	}
}

// around is how far from a broken promise acts and lines of the log are shown.
const around = 5 * time.Second

// linesAround returns the lines of a log around a time, except for logins and
// revocations.
func linesAround(file string, at time.Time) (lines []string) {
	text, err := os.ReadFile(file)
	if err != nil {
		return []string{err.Error()}
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.Contains(line, "msg=login ") || strings.Contains(line, `msg="token revoked"`) {
			continue
		}
		stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		written, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil || written.Sub(at).Abs() < around { // a line without a time is from a panic
			lines = append(lines, line)
		}
	}
	return lines
}
