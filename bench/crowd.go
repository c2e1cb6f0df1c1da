package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// crowdPeer is a service that people log in to. Its clients say in
// X-Forwarded-For where they come from.
type crowdPeer struct {
	peer
	password string
	request  func(username, password string) *http.Request
}

func tokenRequest(username, password string) *http.Request {
	r, _ := http.NewRequest("POST", "http://"+addr+"/token", strings.NewReader(url.Values{"username": {username}, "password": {password},
		"grant_type": {"password"}, "client_id": {"app"}, "client_secret": {"any"}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func pocketBaseRequest(username, password string) *http.Request {
	body, _ := json.Marshal(map[string]string{"identity": username + "@example.com", "password": password})
	r, _ := http.NewRequest("POST", "http://"+addr+"/api/collections/users/auth-with-password", strings.NewReader(string(body)))
	r.Header.Set("Content-Type", "application/json")
	return r
}

// outcome is what became of a login.
type outcome struct {
	served     bool
	took       time.Duration
	retryAfter time.Duration
}

var crowdClient = &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}

func (p *crowdPeer) login(username, password, from string) outcome {
	r := p.request(username, password)
	r.Header.Set("X-Forwarded-For", from)
	began := time.Now()
	response, err := crowdClient.Do(r)
	if err != nil {
		return outcome{took: time.Since(began)}
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	return outcome{response.StatusCode == http.StatusOK, time.Since(began), time.Duration(seconds) * time.Second}
}

// crowds logs many in at the same moment, and honest users beside guessers.
func crowds(dir string, rounds int, others []peer) error {
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "pocketbase"), ".")
	build.Dir = "pocketbase"
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "PocketBase is left out: %v\n%s", err, out)
	}
	peers := []crowdPeer{
		{peer{name: "simple-oauth2", command: func(dir, users string) *exec.Cmd {
			return exec.Command(filepath.Join(dir, "simple-oauth2"), "-addr", addr, "-users", users, "-trusted-proxies", "127.0.0.1")
		}}, "secret", tokenRequest},
		{peer{name: "PocketBase", command: func(dir, _ string) *exec.Cmd {
			data := filepath.Join(dir, "pb_data")
			os.RemoveAll(data)
			return exec.Command(filepath.Join(dir, "pocketbase"), addr, data)
		}}, "correct horse", pocketBaseRequest},
	}
	for _, p := range others {
		peers = append(peers, crowdPeer{p, "secret", tokenRequest})
	}
	scenes := []struct {
		title  string
		alone  bool // without the peers
		cost   int
		figure string
		run    func(p *crowdPeer, rss func() float64) []string
	}{
		{"250 logins from one address", false, bcrypt.DefaultCost, "served; last after s; of bcrypt's rate; MB", func(p *crowdPeer, rss func() float64) []string {
			return crowd(p, 250, func(int) string { return "198.51.100.1" }, rss)
		}},
		{"250 logins from 250 addresses", false, bcrypt.DefaultCost, "served; last after s; of bcrypt's rate; MB", func(p *crowdPeer, rss func() float64) []string {
			return crowd(p, 250, ipv4, rss)
		}},
		{"cost 12, one wrong login a second from johndoe's address", true, 12, honestFigures, func(p *crowdPeer, _ func() float64) []string {
			return beside(p, home, func(stop chan struct{}) {
				for i := 0; ; i++ {
					go p.login("nobody"+strconv.Itoa(i), "wrong", home(0))
					if wait(stop, time.Second) {
						return
					}
				}
			})
		}},
		{"64 guess at johndoe's address as fast as they are answered", false, bcrypt.DefaultCost, honestFigures, func(p *crowdPeer, _ func() float64) []string {
			return beside(p, home, guess(p, 64, home, false))
		}},
		{"400 guess, a /64 each of one /48, and come again when told", true, bcrypt.DefaultCost, honestFigures, func(p *crowdPeer, _ func() float64) []string {
			return beside(p, home, guess(p, 400, func(i int) string { return fmt.Sprintf("2001:db8:0:%x::1", i) }, true))
		}},
		{"200 guess, an IPv4 address each, and come again when told", true, bcrypt.DefaultCost, honestFigures, func(p *crowdPeer, _ func() float64) []string {
			return beside(p, home, guess(p, 200, ipv4, true))
		}},
		{"the same, and johndoe is at a new address each time", true, bcrypt.DefaultCost, honestFigures, func(p *crowdPeer, _ func() float64) []string {
			return beside(p, func(i int) string { return fmt.Sprintf("203.0.%d.1", i) }, guess(p, 200, ipv4, true))
		}},
	}
	for _, scene := range scenes {
		fmt.Printf("\n%s (%s)\n", scene.title, scene.figure)
		for _, p := range peers {
			if scene.alone && p.name != "simple-oauth2" {
				continue
			}
			for range rounds {
				var figures []string
				_, err := started(p.peer, dir, scene.cost, func(rss func() float64) error {
					if !p.login("johndoe", p.password, home(0)).served {
						return errors.New("cannot log in")
					}
					figures = scene.run(&p, rss)
					return nil
				})
				if err != nil {
					fmt.Fprintf(os.Stderr, "  %s is left out: %v\n", p.name, err)
					break
				}
				fmt.Printf("  %-14s %s\n", p.name, strings.Join(figures, "; "))
			}
		}
	}
	return nil
}

func home(int) string   { return "192.0.2.1" }
func ipv4(i int) string { return fmt.Sprintf("10.%d.%d.1", i/200, i%200) }

// crowd logs n in at the same moment.
func crowd(p *crowdPeer, n int, from func(int) string, rss func() float64) []string {
	before := bcryptRate()
	outcomes := make([]outcome, n)
	var clients sync.WaitGroup
	began := time.Now()
	for i := range n {
		clients.Go(func() { outcomes[i] = p.login("johndoe", p.password, from(i)) })
	}
	time.Sleep(time.Second)
	memory := rss()
	clients.Wait()
	took := time.Since(began).Seconds()
	rate := (before + bcryptRate()) / 2
	served := 0
	for _, o := range outcomes {
		if o.served {
			served++
		}
	}
	return []string{fmt.Sprintf("%d of %d", served, n), fmt.Sprintf("%.1f s", took), fmt.Sprintf("%.2f", float64(served)/took/rate), fmt.Sprintf("%.0f MB", memory)}
}

// bcryptRate is how many checks a second the machine can make on all its cores.
func bcryptRate() float64 {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.DefaultCost)
	if err != nil {
		panic(err)
	}
	const each = 20
	began := time.Now()
	var cores sync.WaitGroup
	for range 2 {
		cores.Go(func() {
			for range each {
				bcrypt.CompareHashAndPassword(hash, []byte("secret"))
			}
		})
	}
	cores.Wait()
	return 2 * each / time.Since(began).Seconds()
}

// guess is clients who guess, each at a username of its own each time. Those who
// are polite come again when they were told to.
func guess(p *crowdPeer, clients int, from func(int) string, polite bool) func(chan struct{}) {
	return func(stop chan struct{}) {
		var all sync.WaitGroup
		for i := range clients {
			all.Go(func() {
				for n := 0; ; n++ {
					o := p.login(fmt.Sprintf("nobody%d-%d", i, n), "wrong", from(i))
					if !polite {
						o.retryAfter = 0
					}
					if wait(stop, max(o.retryAfter, time.Millisecond)) {
						return
					}
				}
			})
		}
		all.Wait()
	}
}

func wait(stop chan struct{}, d time.Duration) (stopped bool) {
	select {
	case <-stop:
		return true
	case <-time.After(d):
		return false
	}
}

const honestFigures = "served; median s; longest s"

// beside logs in twenty times, a second apart, beside an attack that began a
// while before.
func beside(p *crowdPeer, from func(int) string, attack func(stop chan struct{})) []string {
	stop := make(chan struct{})
	var attackers, others sync.WaitGroup
	attackers.Go(func() { attack(stop) })
	others.Go(func() { // requests that are no logins
		for !wait(stop, 10*time.Millisecond) {
			if response, err := crowdClient.Get("http://" + addr + "/users/me"); err == nil {
				response.Body.Close()
			}
		}
	})
	time.Sleep(15 * time.Second)
	var took []float64
	served := 0
	for i := range 20 {
		o := p.login("johndoe", p.password, from(i))
		if o.served {
			served++
		}
		took = append(took, o.took.Seconds())
		time.Sleep(time.Second)
	}
	close(stop)
	others.Wait()
	attackers.Wait()
	return []string{fmt.Sprintf("%d of %d", served, len(took)), fmt.Sprintf("%.2f s", median(took)), fmt.Sprintf("%.2f s", slices.Max(took))}
}
