//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// act is one thing that is done to the cluster. What it does is undone after
// lasts.
type act struct {
	at      time.Duration // since the start
	kind    kind
	member  int
	replica int           // none (-1) for all relays to a member
	lasts   time.Duration // 0 for something momentary
	delay   time.Duration // of each packet
	share   float64       // of the connections
	many    int           // members, or revisions to keep
}

type kind string

const (
	killMember     kind = "kill -9 of a member"
	pauseMember    kind = "pause of a member"
	restartMember  kind = "restart of a member"
	loseQuorum     kind = "pause of a majority"
	killReplica    kind = "kill -9 of a replica"
	pauseReplica   kind = "pause of a replica"
	restartReplica kind = "restart of a replica"
	moveLeader     kind = "move of the leader"
	compact        kind = "compaction"
	defragment     kind = "defragmentation"
	holdRequests   kind = "requests held back"
	holdAnswers    kind = "answers held back"
	delayPackets   kind = "packets delayed"
	cutWay         kind = "connections cut"
)

// weights says how often each kind is drawn. Holding back requests is the most
// frequent: it makes a write late.
var weights = []struct {
	kind   kind
	weight int
}{
	{holdRequests, 12}, {holdAnswers, 5}, {delayPackets, 3}, {cutWay, 3},
	{pauseMember, 4}, {killMember, 3}, {restartMember, 2}, {loseQuorum, 1},
	{pauseReplica, 2}, {killReplica, 2}, {restartReplica, 1},
	{moveLeader, 3}, {compact, 3}, {defragment, 2},
}

const none = -1

// recovery is how long a restarted process is left alone.
const recovery = 2 * time.Second

// plan returns what is done in a run. It depends only on the seed. A majority of
// the members stays up, except in loseQuorum, and so does at least one replica.
// The first replica is never ended, so that its leaks add up.
func plan(seed uint64, total time.Duration, members, replicas int) (acts []act) {
	rng := rand.New(rand.NewPCG(seed, 1))
	memberFree := make([]time.Duration, members) // from when each may be hit again
	replicaFree := make([]time.Duration, replicas)
	sum := 0
	for _, w := range weights {
		sum += w.weight
	}
	for at := time.Second; at < total; at += between(rng, 100*time.Millisecond, 1200*time.Millisecond) {
		a := act{at: at, member: rng.IntN(members), replica: rng.IntN(replicas), lasts: between(rng, 300*time.Millisecond, 5*time.Second)}
		draw := rng.IntN(sum)
		for _, w := range weights {
			if draw -= w.weight; draw < 0 {
				a.kind = w.kind
				break
			}
		}
		if rng.IntN(2) == 0 {
			a.share, a.delay = 1, between(rng, 100*time.Millisecond, 2*time.Second)
		} else {
			a.share, a.delay = 0.2+0.6*rng.Float64(), between(rng, 5*time.Millisecond, 150*time.Millisecond)
		}
		switch a.kind {
		case holdRequests: // from all replicas, so that it hits more logins
			if rng.IntN(3) > 0 {
				a.replica = none
			}
			a.lasts = between(rng, time.Second, 5*time.Second)
		case holdAnswers, delayPackets, cutWay:
			if rng.IntN(3) == 0 {
				a.replica = none
			}
		case killMember, pauseMember, restartMember, loseQuorum:
			a.replica, a.many = none, 1
			most := (members - 1) / 2 // that may be down
			if a.kind == loseQuorum {
				a.many, most = members/2+1, members/2+1
			}
			if busy(memberFree, at) > most-a.many || memberFree[a.member] > at {
				continue
			}
			for i := range a.many {
				memberFree[(a.member+i)%members] = at + a.lasts + recovery
			}
		case killReplica, pauseReplica, restartReplica:
			a.member = none
			if a.replica == 0 && a.kind != pauseReplica || busy(replicaFree, at) > replicas-2 || replicaFree[a.replica] > at {
				continue
			}
			replicaFree[a.replica] = at + a.lasts + recovery
		case moveLeader, defragment:
			a.replica, a.lasts = none, 0
		case compact:
			a.replica, a.lasts, a.many = none, 0, rng.IntN(50)
		}
		acts = append(acts, a)
	}
	return acts
}

// busy returns how many are not free at a time.
func busy(free []time.Duration, at time.Duration) (n int) {
	for _, f := range free {
		if f > at {
			n++
		}
	}
	return n
}

func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)))
}

func (a act) String() string {
	s := fmt.Sprintf("%7.1fs %s", a.at.Seconds(), a.kind)
	if a.replica != none {
		s += fmt.Sprintf(", replica %d", a.replica)
	}
	if a.member != none {
		s += fmt.Sprintf(", member %d", a.member)
	}
	switch a.kind {
	case holdRequests, holdAnswers:
		s += fmt.Sprintf(", %.0f %% of the connections", 100*a.share)
	case delayPackets:
		s += fmt.Sprintf(", by %v", a.delay.Round(time.Millisecond))
	}
	if a.lasts > 0 {
		s += fmt.Sprintf(", for %.1fs", a.lasts.Seconds())
	}
	return s
}
