//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a program that is killed, paused and started again.
type process struct {
	name, addr, log string
	command         func() *exec.Cmd
	died            func(*process, string) // called if it ends on its own

	mu      sync.Mutex
	cmd     *exec.Cmd
	ended   chan struct{} // closed when the process has ended
	ending  bool          // we are ending it
	paused  bool
	goingOn time.Time // since when it has been running
}

// starts are run one by one on a thread that never ends: the kernel kills a
// child with Pdeathsig when the thread ends that started it.
var starts = make(chan func())

func startForever() {
	runtime.LockOSThread()
	for start := range starts {
		start()
	}
}

func (p *process) start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := p.command()
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Ctrl-C is only for this program
	started := make(chan error)
	starts <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return err
	}
	ended := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.ended, p.ending, p.paused, p.goingOn = cmd, ended, false, false, time.Now()
	p.mu.Unlock()
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		asked := p.ending
		p.mu.Unlock()
		close(ended)
		if !asked {
			p.died(p, fmt.Sprint(err))
		}
	}()
	return nil
}

// end ends the process with a signal, and waits until it has ended. After SIGTERM
// it must end without an error.
func (p *process) end(s syscall.Signal) {
	p.mu.Lock()
	p.ending = true
	p.cmd.Process.Signal(s)
	cmd, ended := p.cmd, p.ended
	p.mu.Unlock()
	select {
	case <-ended:
	case <-time.After(15 * time.Second):
		cmd.Process.Kill()
		<-ended
		p.died(p, "still there 15s after "+s.String())
		return
	}
	if s == syscall.SIGTERM && cmd.ProcessState.Sys().(syscall.WaitStatus).ExitStatus() > 0 {
		p.died(p, "after SIGTERM: "+cmd.ProcessState.String())
	}
}

func (p *process) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = true
	p.cmd.Process.Signal(syscall.SIGSTOP)
}

func (p *process) goOn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd.Process.Signal(syscall.SIGCONT)
	p.paused, p.goingOn = false, time.Now()
}

// runsSince returns since when the process has been running without a pause, or
// the current time if it is not running.
func (p *process) runsSince() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused || p.ending {
		return time.Now()
	}
	return p.goingOn
}

// cluster is members of etcd and replicas of the service, with a relay between
// each replica and each member.
type cluster struct {
	members  []*process
	replicas []*process
	relays   [][]*relay // by replica and member
}

// newCluster starts everything, with data and logs in dir. The service is the
// program at o.binary. A process that ends on its own is recorded and restarted.
func newCluster(ctx context.Context, dir string, o options, r *record) (*cluster, error) {
	died := func(p *process, how string) {
		if strings.HasPrefix(p.name, "member") {
			r.note(func() { r.notes = append(r.notes, p.name+" died by itself: "+how) })
		} else {
			r.breaks(death, p.name, how, how)
		}
		wait(ctx, time.Now().Add(200*time.Millisecond))
		p.mu.Lock()
		again := !p.ending && ctx.Err() == nil
		p.mu.Unlock()
		if again {
			p.start()
		}
	}
	users := filepath.Join(dir, "users.json")
	if err := writeUsers(users, o.binary); err != nil {
		return nil, err
	}
	addrs := ownAddrs(2*o.members + o.replicas + o.members*o.replicas)
	take := func() (addr string) {
		addr, addrs = addrs[0], addrs[1:]
		return addr
	}
	go startForever()
	c := &cluster{}
	var peers []string
	for i := range o.members {
		peer, addr := "http://"+take(), take()
		peers = append(peers, fmt.Sprintf("m%d=%s", i, peer))
		m := &process{name: fmt.Sprint("member ", i), addr: addr, log: filepath.Join(dir, fmt.Sprint("member", i)), died: died}
		m.command = func() *exec.Cmd {
			return exec.Command("etcd", "--name", fmt.Sprint("m", i), "--data-dir", filepath.Join(dir, fmt.Sprint("data", i)),
				"--log-level", "error", "--unsafe-no-fsync", "--heartbeat-interval", "100", "--election-timeout", "700",
				"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
				"--listen-client-urls", "http://"+addr, "--advertise-client-urls", "http://"+addr,
				"--initial-cluster", strings.Join(peers, ","), "--initial-cluster-token", dir)
		}
		c.members = append(c.members, m)
	}
	for i := range o.replicas {
		addr := take()
		var endpoints []string
		c.relays = append(c.relays, nil)
		for j, m := range c.members {
			way := newRelay(take(), m.addr, rand.New(rand.NewPCG(o.seed, uint64(2+i*o.members+j))))
			endpoints = append(endpoints, "http://"+way.addr)
			c.relays[i] = append(c.relays[i], way)
			go way.run(ctx)
		}
		c.replicas = append(c.replicas, &process{name: fmt.Sprint("replica ", i), addr: addr, log: filepath.Join(dir, fmt.Sprint("replica", i)), died: died,
			command: func() *exec.Cmd {
				return exec.Command(o.binary, "-addr", addr, "-users", users, "-token-ttl", o.ttl.String(), "-etcd", strings.Join(endpoints, ","))
			}})
	}
	for _, p := range slices.Concat(c.members, c.replicas) {
		if err := p.start(); err != nil {
			c.killAll()
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return c, nil
}

func (c *cluster) killAll() {
	for _, p := range slices.Concat(c.replicas, c.members) {
		if p.cmd != nil {
			p.end(syscall.SIGKILL)
		}
	}
}

// user and gate may log in with the password; gate may introspect.
const (
	user     = "user"
	gate     = "gate"
	password = "correct horse"
)

func writeUsers(file, binary string) error {
	cmd := exec.Command(binary, "hash", "-cost", "4")
	cmd.Stdin = strings.NewReader(password)
	hash, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s hash: %w", binary, err)
	}
	hash = bytes.TrimSpace(hash)
	return os.WriteFile(file, fmt.Appendf(nil, `{"%s": {"hashed_password": "%s"}, "%s": {"hashed_password": "%s", "scopes": ["introspect"]}}`,
		user, hash, gate, hash), 0o600)
}

// ownAddrs returns addresses on a loopback host that nobody else is likely to use:
// what listens there is killed, and must find its port free when it is restarted.
func ownAddrs(n int) (addrs []string) {
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	for i := range n {
		addrs = append(addrs, fmt.Sprint(host, ":", 2000+i))
	}
	return addrs
}

// do does an act, waits as long as it lasts, but only until ctx ends, and undoes
// it.
func (c *cluster) do(ctx context.Context, a act) error {
	lasts := func() { wait(ctx, time.Now().Add(a.lasts)) }
	switch a.kind {
	case killMember, restartMember:
		s := syscall.SIGKILL
		if a.kind == restartMember {
			s = syscall.SIGTERM
		}
		c.members[a.member].end(s)
		for _, way := range c.ways(none, a.member) {
			way.memberGone()
		}
		lasts()
		return c.members[a.member].start()
	case pauseMember, loseQuorum:
		for i := range a.many {
			c.members[(a.member+i)%len(c.members)].pause()
		}
		lasts()
		for i := range a.many {
			c.members[(a.member+i)%len(c.members)].goOn()
		}
	case killReplica, restartReplica:
		s := syscall.SIGKILL
		if a.kind == restartReplica {
			s = syscall.SIGTERM
		}
		c.replicas[a.replica].end(s)
		lasts()
		return c.replicas[a.replica].start()
	case pauseReplica:
		c.replicas[a.replica].pause()
		lasts()
		c.replicas[a.replica].goOn()
	case holdRequests, holdAnswers:
		direction := toMember
		if a.kind == holdAnswers {
			direction = toReplica
		}
		for _, way := range c.ways(a.replica, a.member) {
			way.hold(direction, a.share, a.lasts)
		}
	case delayPackets:
		for _, way := range c.ways(a.replica, a.member) {
			way.setDelay(a.delay)
		}
		lasts()
		for _, way := range c.ways(a.replica, a.member) {
			way.setDelay(0)
		}
	case cutWay:
		for _, way := range c.ways(a.replica, a.member) {
			way.setCut(true)
		}
		lasts()
		for _, way := range c.ways(a.replica, a.member) {
			way.setCut(false)
		}
	case moveLeader:
		return c.moveLeader(ctx, a.member)
	case compact:
		status, err := c.status(ctx, a.member)
		if err != nil {
			return err
		}
		return c.etcd(ctx, a.member, "/v3/kv/compaction", map[string]any{"revision": max(1, status.Header.Revision-int64(a.many))}, nil)
	case defragment:
		return c.etcd(ctx, a.member, "/v3/maintenance/defragment", struct{}{}, nil)
	}
	return nil
}

// ways returns the relays to a member, from one replica or from all.
func (c *cluster) ways(replica, member int) (ways []*relay) {
	for i, all := range c.relays {
		if replica == none || replica == i {
			ways = append(ways, all[member])
		}
	}
	return ways
}

// # Past the relays

// status is the status of etcd, according to a member.
type status struct {
	Header struct {
		MemberID string `json:"member_id"`
		Revision int64  `json:"revision,string"`
	} `json:"header"`
	Leader string `json:"leader"`
}

func (c *cluster) status(ctx context.Context, member int) (s status, err error) {
	err = c.etcd(ctx, member, "/v3/maintenance/status", struct{}{}, &s)
	return s, err
}

// moveLeader makes a member the leader.
func (c *cluster) moveLeader(ctx context.Context, to int) error {
	target, err := c.status(ctx, to)
	if err != nil || target.Leader == target.Header.MemberID {
		return err
	}
	for i := range c.members {
		if s, err := c.status(ctx, i); err == nil && s.Leader == s.Header.MemberID {
			return c.etcd(ctx, i, "/v3/maintenance/transfer-leadership", map[string]string{"targetID": target.Header.MemberID}, nil)
		}
	}
	return errors.New("no leader")
}

// etcd asks a member, and reads its answer into out if that is not nil.
func (c *cluster) etcd(ctx context.Context, member int, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, "POST", "http://"+c.members[member].addr+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, bytes.TrimSpace(text))
	}
	if err == nil && out != nil {
		err = json.Unmarshal(text, out)
	}
	return err
}
