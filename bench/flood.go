package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const guessers = 64

// row is what one round says of a peer.
type row struct {
	calm, calmP99       float64 // requests a second, milliseconds
	guessed, guessedP99 float64
	honest              float64 // milliseconds of a login
	failed              float64 // honest logins
	start               float64 // milliseconds
	idle, filled        float64 // MB
}

// flood loads /users/me alone and while clients guess passwords.
func (b *bench) flood() error {
	script := "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/x-www-form-urlencoded'\n"
	form := "grant_type=password&client_id=app&client_secret=any&password=wrong&username="
	if b.spray {
		script += "request = function() return wrk.format(nil, nil, nil, '" + form + "' .. math.random(1e9)) end\n"
	} else {
		script += "wrk.body = '" + form + "johndoe'\n"
	}
	if err := os.WriteFile(filepath.Join(b.dir, "guess.lua"), []byte(script), 0o600); err != nil {
		return err
	}
	results := make(map[string][]row)
	for round := range b.rounds {
		for _, p := range b.peers {
			fmt.Fprintf(os.Stderr, "flood, round %d: %s\n", round+1, p.name)
			measured, err := measure(p, b.dir, bcrypt.DefaultCost, func(m *row, token string, rss func() float64) error {
				m.idle = rss()
				return b.load(token, m)
			})
			if err != nil {
				fmt.Fprintf(os.Stderr, "  left out: %v\n", err)
				continue
			}
			fmt.Fprintf(os.Stderr, "  %+v\n", measured)
			results[p.name] = append(results[p.name], measured)
		}
	}
	for _, p := range b.peers {
		if results[p.name] == nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "%d tokens: %s\n", b.tokens, p.name)
		measured, err := measure(p, b.dir, bcrypt.MinCost, func(m *row, _ string, rss func() float64) error {
			if err := fill(addr, b.tokens); err != nil {
				return err
			}
			m.filled = rss()
			return nil
		})
		if err != nil {
			return err
		}
		for i := range results[p.name] {
			results[p.name][i].filled = measured.filled
		}
	}
	b.table(results)
	return nil
}

// bare compares /users/me with a bare net/http handler.
func (b *bench) bare() error {
	_, err := measure(b.peers[0], b.dir, bcrypt.DefaultCost, func(_ *row, token string, _ func() float64) error {
		bare, err := b.startBare()
		if err != nil {
			return err
		}
		defer kill(bare)
		return inTurn("the service", addr, token, "a bare net/http handler", bareAddr, token)
	})
	return err
}

const bareAddr = "127.0.0.1:18001"

func (b *bench) startBare() (*exec.Cmd, error) {
	bare := exec.Command(filepath.Join(b.dir, "bench"), "-serve", "bare", "-addr", bareAddr)
	return bare, bare.Start()
}

// inTurn loads /users/me at two addresses: forty turns of one second each, in
// an order that chance decides, since what else the machine does changes from
// second to second.
func inTurn(name, addr, token, otherName, otherAddr, otherToken string) error {
	var rates [2][]float64
	var ratios []float64
	for range 40 {
		var turn [2]float64
		for _, i := range rand.Perm(2) {
			rate, _, err := wrk([]string{addr, otherAddr}[i], 1, []string{token, otherToken}[i])
			if err != nil {
				return err
			}
			turn[i] = rate
			rates[i] = append(rates[i], rate)
		}
		ratios = append(ratios, turn[0]/turn[1])
	}
	fmt.Printf("\n`/users/me`, requests/s: %s %.0f, %s in turn with it %.0f; median of the ratios %.3f\n",
		name, median(rates[0]), otherName, median(rates[1]), median(ratios))
	return nil
}

// load runs wrk on /users/me alone, and then while clients guess and an honest
// one at another address logs in, a second after each answer.
func (b *bench) load(token string, m *row) (err error) {
	if m.calm, m.calmP99, err = wrk(addr, b.seconds, token); err != nil {
		return err
	}
	guess := exec.Command("wrk", "-t1", "-c"+strconv.Itoa(guessers), "-d"+strconv.Itoa(b.seconds+2)+"s", "--timeout", "60s",
		"-s", filepath.Join(b.dir, "guess.lua"), "http://"+addr+"/token")
	if err := guess.Start(); err != nil {
		return err
	}
	time.Sleep(time.Second)
	stop := make(chan struct{})
	var took []float64
	var honest sync.WaitGroup
	honest.Go(func() {
		client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext}}
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
			}
			began := time.Now()
			_, status, err := login(client, addr, "secret")
			if err != nil || status != 200 {
				m.failed++
			}
			took = append(took, float64(time.Since(began).Microseconds())/1000)
		}
	})
	m.guessed, m.guessedP99, err = wrk(addr, b.seconds, token)
	close(stop)
	honest.Wait()
	guess.Wait()
	m.honest = median(took)
	return err
}

func (b *bench) table(results map[string][]row) {
	var titles, shipped []string
	for _, p := range b.peers {
		if results[p.name] == nil {
			continue
		}
		titles = append(titles, p.name)
		if p.shipped == nil {
			shipped = append(shipped, "")
		} else {
			shipped = append(shipped, fmt.Sprintf("%.1f", float64(p.shipped(b.dir))/1e6))
		}
	}
	fmt.Printf("\n| | %s |\n|%s\n", strings.Join(titles, " | "), strings.Repeat(" --- |", len(titles)+1))
	for _, line := range []struct {
		title, format string
		figure        func(row) float64
	}{
		{"`/users/me`, requests/s", "%.0f", func(r row) float64 { return r.calm }},
		{"its 99th percentile, ms", "%.1f", func(r row) float64 { return r.calmP99 }},
		{"`/users/me` while 64 clients guess, requests/s", "%.0f", func(r row) float64 { return r.guessed }},
		{"of the calm rate", "%.2f", func(r row) float64 { return r.guessed / r.calm }},
		{"its 99th percentile, ms", "%.1f", func(r row) float64 { return r.guessedP99 }},
		{"an honest login meanwhile, ms", "%.0f", func(r row) float64 { return r.honest }},
		{"honest logins that failed", "%.0f", func(r row) float64 { return r.failed }},
		{"memory when idle, MB", "%.0f", func(r row) float64 { return r.idle }},
		{fmt.Sprintf("memory with %d live tokens, MB", b.tokens), "%.0f", func(r row) float64 { return r.filled }},
		{"start to first answer, ms", "%.0f", func(r row) float64 { return r.start }},
	} {
		fmt.Printf("| %s |", line.title)
		for _, name := range titles {
			var all figures
			for _, r := range results[name] {
				all = append(all, line.figure(r))
			}
			fmt.Printf(" %s |", all.in(line.format))
		}
		fmt.Println()
	}
	fmt.Printf("| what is shipped, MB | %s |\n", strings.Join(shipped, " | "))
}
