//go:build linux

package main

import (
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	// Given after half a second and over after 20 to 21 seconds.
	fresh := born(at(0.4), at(1.5), 20*time.Second)
	during := fresh // a revocation is on its way
	during.revoking = at(5)
	revoked := during
	revoked.revoked = at(6)

	for _, tt := range []struct {
		name    string
		life    life
		alive   bool
		sent    float64
		came    float64
		runs    float64
		reaches bool
		late    time.Duration
		want    promise
		leftOut bool
	}{
		{name: "alive", life: fresh, alive: true, sent: 2, came: 2, reaches: true},
		{name: "refused", life: fresh, sent: 2, came: 2, want: refused},
		{name: "refused where the replica does not reach etcd", life: fresh, sent: 2, came: 2, want: refused},
		{name: "asked before it was given", life: fresh, sent: 1, came: 2},
		{name: "refused at its end", life: fresh, sent: 19, came: 20},
		{name: "refused while being revoked", life: during, sent: 4, came: 5.5},
		{name: "alive while being revoked", life: during, alive: true, sent: 9, came: 9, reaches: true},
		{name: "refused when revoked", life: revoked, sent: 6, came: 6},
		{name: "alive a second after", life: revoked, alive: true, sent: 7, came: 9, reaches: true},
		{name: "alive longer after", life: revoked, alive: true, sent: 7.01, came: 9, reaches: true, want: woken},
		{name: "where etcd is not reached", life: revoked, alive: true, sent: 9, came: 9},
		{name: "a second after a pause", life: revoked, alive: true, sent: 9, came: 9, runs: 8, reaches: true},
		{name: "longer after a pause", life: revoked, alive: true, sent: 9.01, came: 9.1, runs: 8, reaches: true, want: woken},
		{name: "a pause meanwhile", life: revoked, alive: true, sent: 9, came: 12, runs: 11, reaches: true},
		{name: "the checker was late", life: revoked, alive: true, sent: 7.3, came: 7.3, reaches: true, late: 100 * time.Millisecond, leftOut: true},
		{name: "but not as late", life: revoked, alive: true, sent: 7.31, came: 7.4, reaches: true, late: 100 * time.Millisecond, want: woken},
		{name: "alive a second past its end", life: fresh, alive: true, sent: 22, came: 22},
		{name: "alive longer past its end", life: fresh, alive: true, sent: 22.01, came: 22.1, want: outlived},
		{name: "refused past its end", life: fresh, sent: 22.01, came: 22.1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := answer{alive: tt.alive, sent: at(tt.sent), came: at(tt.came), runsSince: at(tt.runs), reachesEtcd: tt.reaches}
			if got, leftOut := judge(tt.life, a, tt.late); got != tt.want || leftOut != tt.leftOut {
				t.Errorf("broken %q, left out %v; want %q, %v", got, leftOut, tt.want, tt.leftOut)
			}
		})
	}
}

func TestUnexpectedLines(t *testing.T) {
	const time = "time=2026-01-02T03:04:05.678Z "
	for _, tt := range []struct {
		name, line string
		want       bool
	}{
		{"a line", time + `level=INFO msg=listening addr=127.0.0.1:8000`, false},
		{"a warning", time + `level=WARN msg="etcd cannot be reached, known tokens keep working" error=EOF`, false},
		{"not stored", time + `level=ERROR msg="could not store a token in etcd" error="context deadline exceeded"`, false},
		{"not revoked", time + `level=ERROR msg="could not revoke a token in etcd" error=EOF`, false},
		{"another error", time + `level=ERROR msg="unexpected error" error="could not store a token in etcd"`, true},
		{"an error of one word", time + `level=ERROR msg=oops`, true},
		{"an error with quotes", time + `level=ERROR msg="could not store a token in etcd\" or so"`, true},
		{"a panic of a handler", time + `level=ERROR msg="http: panic serving 127.0.0.1:1: nil\ngoroutine 7 [running]"`,
			true},
		{"a panic", "panic: runtime error: index out of range [1] with length 1", true},
		{"a stack", "goroutine 7 [running]:", true},
		{"a frame", "\t/usr/local/go/src/net/http/server.go:1971 +0x1", true},
		{"an error at the start", "simple-oauth2: -etcd: endpoint 1 is not of the form http://host:2379", true},
	} {
		log := time + "level=INFO msg=starting\n" + tt.line + "\n" + time + "level=INFO msg=stopped\n"
		if got := unexpectedLines(log); (len(got) == 1 && got[0] == tt.line) != tt.want || !tt.want && got != nil {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
}

// TestPlan checks that a seed makes the same plan each time, and that as many members
// and replicas stay up as promised.
func TestPlan(t *testing.T) {
	const hour = time.Hour
	for _, size := range []struct{ members, replicas int }{{1, 1}, {3, 3}, {5, 2}} {
		acts := plan(7, hour, size.members, size.replicas)
		if !reflect.DeepEqual(acts, plan(7, hour, size.members, size.replicas)) {
			t.Error("one seed made two plans")
		}
		if reflect.DeepEqual(acts, plan(8, hour, size.members, size.replicas)) {
			t.Error("two seeds made the same plan")
		}
		kinds := make(map[kind]int)
		for i, a := range acts {
			kinds[a.kind]++
			membersDown, replicasDown := 0, 0
			for _, b := range acts[:i+1] {
				if b.at+b.lasts <= a.at && b.at != a.at {
					continue
				}
				switch b.kind {
				case killMember, pauseMember, restartMember:
					membersDown++
				case killReplica, restartReplica:
					if b.replica == 0 {
						t.Errorf("the first replica is ended: %v", b)
					}
					replicasDown++
				case pauseReplica:
					replicasDown++
				}
			}
			if membersDown > (size.members-1)/2 || size.replicas > 1 && replicasDown >= size.replicas {
				t.Errorf("%d members and %d replicas are down at %v", membersDown, replicasDown, a)
			}
		}
		if size.members == 3 && len(kinds) != len(weights) {
			t.Errorf("an hour has only these kinds: %v", kinds)
		}
	}
}

// TestRelay sends through a relay what it must hold back, and hangs up.
func TestRelay(t *testing.T) {
	member, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	r := newRelay(ownAddrs(1)[0], member.Addr().String(), rand.New(rand.NewPCG(1, 1)))
	go r.run(t.Context())
	probe, err := member.Accept() // the relay's, to see whether the member is there
	if err != nil {
		t.Fatal(err)
	}
	probe.Close()
	dial := func() (client, server net.Conn) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); client == nil; {
			if client, err = net.Dial("tcp", r.addr); err != nil && time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
		if server, err = member.Accept(); err != nil {
			t.Fatal(err)
		}
		return client, server
	}
	read := func(from net.Conn, want string) time.Time {
		t.Helper()
		text := make([]byte, len(want))
		if _, err := io.ReadFull(from, text); err != nil || string(text) != want {
			t.Fatalf("read %q, %v; want %q", text, err, want)
		}
		return time.Now()
	}

	client, server := dial()
	io.WriteString(client, "a request")
	read(server, "a request")
	io.WriteString(server, "its answer")
	read(client, "its answer")

	const lasts = 300 * time.Millisecond
	began := time.Now()
	r.hold(toMember, 1, lasts)
	io.WriteString(client, "a late request")
	client.Close()
	if came := read(server, "a late request"); came.Sub(began) < lasts {
		t.Errorf("what was held came after %v", came.Sub(began))
	}
	if n, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the hang-up %d, %v", n, err)
	}

	client, server = dial()
	began = time.Now()
	r.setDelay(lasts)
	io.WriteString(server, "an answer")
	if came := read(client, "an answer"); came.Sub(began) < lasts {
		t.Errorf("what was delayed came after %v", came.Sub(began))
	}
	r.setCut(true)
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("a cut connection still works")
	}
	if _, err := net.Dial("tcp", r.addr); err == nil {
		t.Error("a cut relay accepts connections")
	}
}
