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

// crowdPeer is a service that people log in to. Its clients give their address in
// X-Forwarded-For.
type crowdPeer struct {
	peer
	user     func(i int) string // the users to log in; a peer may have but one
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

// scene is something that happens to a service, and the figures to take.
type scene struct {
	title   string
	alone   bool // without the peers
	cost    int
	figures []string // name and format
	run     func(p *crowdPeer, rss func() float64) []float64
}

const others = 250 // users beside johndoe

var (
	crowdFigures  = []string{"served", "%.0f", "the last after, s", "%.1f", "of the rate that bcrypt allows", "%.2f", "memory, MB", "%.0f"}
	honestFigures = []string{"served, %", "%.0f", "median, s", "%.2f", "longest, s", "%.1f"}
)

func scenes() (all []scene) {
	crowds := func(n int, title string, from func(int) string) {
		all = append(all, scene{title, false, bcrypt.DefaultCost, crowdFigures, func(p *crowdPeer, rss func() float64) []float64 {
			return crowd(p, n, from, rss)
		}})
	}
	honest := func(alone bool, cost int, title string, who func(p *crowdPeer, i int) (username, from string), attack func(p *crowdPeer, stop chan struct{})) {
		all = append(all, scene{title, alone, cost, honestFigures, func(p *crowdPeer, _ func() float64) []float64 {
			return beside(p, who, attack)
		}})
	}
	johndoe := func(p *crowdPeer, i int) (string, string) { return "johndoe", home(i) }
	travels := func(p *crowdPeer, i int) (string, string) { return "johndoe", fmt.Sprintf("203.0.%d.1", i%256) }
	colleagues := func(p *crowdPeer, i int) (string, string) { return p.user(i), home(i) }

	crowds(20, "20 logins at once from one address", home)
	crowds(250, "250 logins at once from one address", home)
	crowds(250, "250 logins at once from 250 addresses", ipv4)
	honest(true, 12, "cost 12, one wrong login a second from johndoe's address", johndoe, each(time.Second))
	honest(true, bcrypt.DefaultCost, "four wrong logins a second from johndoe's address", johndoe, each(time.Second/4))
	honest(false, bcrypt.DefaultCost, "64 guess at johndoe's address as fast as they are answered", johndoe, guess(64, home, false))
	honest(true, 12, "the same at cost 12", johndoe, guess(64, home, false))
	honest(true, bcrypt.DefaultCost, "the same at cost 10, and each is the first login of a colleague", colleagues, guess(64, home, false))
	in48 := func(i int) string { return fmt.Sprintf("2001:db8:0:%x::1", i) }
	honest(true, bcrypt.DefaultCost, "400 guess, a /64 each of one /48, and come back when told", johndoe, guess(400, in48, true))
	honest(true, bcrypt.DefaultCost, "the same, and johndoe is at a new address each time", travels, guess(400, in48, true))
	honest(true, bcrypt.DefaultCost, "200 guess, an IPv4 address each, and come back when told", johndoe, guess(200, ipv4, true))
	honest(true, bcrypt.DefaultCost, "the same, and johndoe is at a new address each time", travels, guess(200, ipv4, true))
	return all
}

// crowds logs many users in at the same moment, and honest users while others
// guess.
func (b *bench) crowds() error {
	if err := b.build("pocketbase", "pocketbase"); err != nil {
		fmt.Fprintf(os.Stderr, "PocketBase is left out: %v\n", err)
	}
	one := func(int) string { return "johndoe" }
	peers := []crowdPeer{
		{peer{name: "simple-oauth2", command: func(dir, users string) *exec.Cmd {
			return exec.Command(filepath.Join(dir, "simple-oauth2"), "-addr", addr, "-users", users, "-trusted-proxies", "127.0.0.1")
		}}, func(i int) string { return fmt.Sprint("user", i) }, "secret", tokenRequest},
		{peer{name: "PocketBase", command: func(dir, _ string) *exec.Cmd {
			data := filepath.Join(dir, "pb_data")
			os.RemoveAll(data)
			return exec.Command(filepath.Join(dir, "pocketbase"), addr, data)
		}}, one, "correct horse", pocketBaseRequest},
	}
	for _, p := range b.peers[1:] {
		peers = append(peers, crowdPeer{p, one, "secret", tokenRequest})
	}
	var names []string
	for _, p := range peers {
		names = append(names, p.name)
	}
	fmt.Printf("\n| | | %s |\n|%s\n", strings.Join(names, " | "), strings.Repeat(" --- |", len(names)+2))
	for _, scene := range scenes() {
		taken := make([][]figures, len(peers)) // by peer and figure
		for i, p := range peers {
			if scene.alone && i > 0 {
				continue
			}
			for round := range b.rounds {
				fmt.Fprintf(os.Stderr, "%s, round %d: %s\n", scene.title, round+1, p.name)
				_, err := started(p.peer, b.dir, scene.cost, others, func(rss func() float64) error {
					if !p.login("johndoe", p.password, home(0)).served {
						return errors.New("cannot log in")
					}
					values := scene.run(&p, rss)
					fmt.Fprintf(os.Stderr, "  %.3f\n", values)
					taken[i] = append(taken[i], values)
					return nil
				})
				if err != nil {
					fmt.Fprintf(os.Stderr, "  left out: %v\n", err)
					break
				}
			}
		}
		title := scene.title
		for figure := 0; figure < len(scene.figures); figure += 2 {
			fmt.Printf("| %s | %s |", title, scene.figures[figure])
			for _, rounds := range taken {
				var all figures
				for _, values := range rounds {
					all = append(all, values[figure/2])
				}
				fmt.Printf(" %s |", all.in(scene.figures[figure+1]))
			}
			fmt.Println()
			title = ""
		}
	}
	return nil
}

func home(int) string   { return "192.0.2.1" }
func ipv4(i int) string { return fmt.Sprintf("10.%d.%d.1", i/200, i%200) }

// crowd logs n users in at the same moment.
func crowd(p *crowdPeer, n int, from func(int) string, rss func() float64) []float64 {
	before := bcryptRate()
	outcomes := make([]outcome, n)
	var clients sync.WaitGroup
	began := time.Now()
	for i := range n {
		clients.Go(func() { outcomes[i] = p.login(p.user(i), p.password, from(i)) })
	}
	var watching sync.WaitGroup
	most, ended := 0.0, make(chan struct{})
	watching.Go(func() {
		for !wait(ended, 20*time.Millisecond) {
			most = max(most, rss())
		}
	})
	clients.Wait()
	took := time.Since(began).Seconds()
	close(ended)
	watching.Wait()
	rate := (before + bcryptRate()) / 2
	served := 0.0
	for _, o := range outcomes {
		if o.served {
			served++
		}
	}
	return []float64{served, took, served / took / rate, most}
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

// each is a client that guesses at johndoe's address again and again.
func each(gap time.Duration) func(p *crowdPeer, stop chan struct{}) {
	return func(p *crowdPeer, stop chan struct{}) {
		for i := 0; ; i++ {
			go p.login("nobody"+strconv.Itoa(i), "wrong", home(0))
			if wait(stop, gap) {
				return
			}
		}
	}
}

// guess starts clients that guess, each at a new username each time. Polite ones
// wait as long as they are told to.
func guess(clients int, from func(int) string, polite bool) func(p *crowdPeer, stop chan struct{}) {
	return func(p *crowdPeer, stop chan struct{}) {
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

// beside logs in for twenty seconds, a quarter of a second after each answer,
// during an attack that began a while ago.
func beside(p *crowdPeer, who func(p *crowdPeer, i int) (username, from string), attack func(p *crowdPeer, stop chan struct{})) []float64 {
	stop := make(chan struct{})
	var attackers, others sync.WaitGroup
	attackers.Go(func() { attack(p, stop) })
	others.Go(func() { // requests other than logins
		for !wait(stop, 10*time.Millisecond) {
			if response, err := crowdClient.Get("http://" + addr + "/users/me"); err == nil {
				response.Body.Close()
			}
		}
	})
	time.Sleep(10 * time.Second)
	var took []float64
	served := 0.0
	for i, end := 0, time.Now().Add(20*time.Second); time.Now().Before(end); i++ {
		username, from := who(p, i)
		o := p.login(username, p.password, from)
		if o.served {
			served++
		}
		took = append(took, o.took.Seconds())
		time.Sleep(time.Second / 4)
	}
	close(stop)
	others.Wait()
	attackers.Wait()
	return []float64{100 * served / float64(len(took)), median(took), slices.Max(took)}
}
