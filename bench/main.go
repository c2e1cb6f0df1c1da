// Bench puts this service and its peers under the same load on the loopback,
// one after the other, and prints a table of medians. It needs wrk and, for
// FastAPI, Debian's python3-fastapi, uvicorn, python3-bcrypt and
// python3-multipart; a peer that cannot be started is left out, with a word.
//
//	go run .                 all of it, some twelve minutes
//	go run . -rounds 1 -seconds 2 -tokens 1000   a first look
//	go run . -rounds 0       the service beside a bare net/http handler alone
//	go run . -etcd           a replica that has etcd beside a service of one machine alone
//	go run . -crowd          crowds that log in, and honest users beside guessers, alone
//	go run . -introspect     /introspect beside /users/me, by bearer token and by HTTP Basic, alone
//	go run . -spray          the guessers try another username each time
//	go run . -bodies         the memory that logins of 64 KiB take, over 4,000 connections
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	addr     = "127.0.0.1:18000"
	guessers = 64
)

// peer is a service to measure.
type peer struct {
	name    string
	command func(dir string, users string) *exec.Cmd
	shipped func(dir string) int64 // bytes
}

// row is what one round says of a peer; a figure that was not taken is 0.
type row struct {
	calm, calmP99       float64 // requests a second, milliseconds
	guessed, guessedP99 float64
	honest              float64 // milliseconds of a login
	refused             float64 // honest logins
	start               float64 // milliseconds
	idle, filled        float64 // MB
}

func main() {
	serve := flag.String("serve", "", "be a peer instead: bare or go-oauth2")
	serveAddr := flag.String("addr", addr, "the peer's address")
	rounds := flag.Int("rounds", 3, "rounds to take the median of")
	seconds := flag.Int("seconds", 10, "length of each load")
	tokens := flag.Int("tokens", 100_000, "live tokens to measure the memory with")
	spray := flag.Bool("spray", false, "guess at another username each time")
	crowd := flag.Bool("crowd", false, "log crowds in, and honest users beside guessers, alone")
	introspect := flag.Bool("introspect", false, "compare /introspect with /users/me, alone")
	etcd := flag.Bool("etcd", false, "compare a replica that has etcd with a service of one machine, alone")
	long := flag.Bool("bodies", false, "post logins of 64 KiB and measure the memory, alone")
	flag.Parse()
	switch *serve {
	case "bare":
		serveBare(*serveAddr)
	case "go-oauth2":
		serveGoOAuth2(*serveAddr)
	}
	if err := bench(*rounds, *seconds, *tokens, *spray, *etcd, *crowd, *long, *introspect); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(rounds, seconds, tokens int, spray, etcd, crowd, long, introspect bool) error {
	if _, err := exec.LookPath("wrk"); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for source, binary := range map[string]string{"..": "simple-oauth2", ".": "bench"} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, binary), ".")
		build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	if etcd {
		return besideEtcd(dir, tokens)
	}
	if long {
		return bodies(dir, seconds)
	}
	script := "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/x-www-form-urlencoded'\n"
	form := "grant_type=password&client_id=app&client_secret=any&password=wrong&username="
	if spray {
		script += "request = function() return wrk.format(nil, nil, nil, '" + form + "' .. math.random(1e9)) end\n"
	} else {
		script += "wrk.body = '" + form + "johndoe'\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "guess.lua"), []byte(script), 0o600); err != nil {
		return err
	}

	binary := func(dir string) int64 { return size(filepath.Join(dir, "bench")) }
	peers := []peer{
		{"simple-oauth2", func(dir, users string) *exec.Cmd {
			return exec.Command(filepath.Join(dir, "simple-oauth2"), "-addr", addr, "-users", users)
		}, func(dir string) int64 { return size(filepath.Join(dir, "simple-oauth2")) }},
		{"go-oauth2", func(dir, _ string) *exec.Cmd { return exec.Command(filepath.Join(dir, "bench"), "-serve", "go-oauth2") }, binary},
		{"FastAPI", func(string, string) *exec.Cmd {
			host, port, _ := net.SplitHostPort(addr)
			return exec.Command("/usr/bin/python3", "-m", "uvicorn", "fastapi_app:app", "--host", host, "--port", port, "--no-access-log", "--log-level", "error")
		}, nil},
	}
	if crowd {
		return crowds(dir, rounds, peers[1:])
	}
	if introspect {
		_, err := measure(peers[0], dir, bcrypt.DefaultCost, func(_ *row, token string, _ func() float64) error {
			return besideUsersMe(dir, token)
		})
		return err
	}
	results := make(map[string][]row)
	for round := range rounds {
		for _, p := range peers {
			fmt.Fprintf(os.Stderr, "round %d: %s\n", round+1, p.name)
			measured, err := measure(p, dir, bcrypt.DefaultCost, func(m *row, token string, rss func() float64) error {
				m.idle = rss()
				return load(p, dir, seconds, token, m)
			})
			if err != nil {
				fmt.Fprintf(os.Stderr, "  left out: %v\n", err)
				continue
			}
			fmt.Fprintf(os.Stderr, "  %+v\n", measured)
			results[p.name] = append(results[p.name], measured)
		}
	}
	for _, p := range peers {
		if results[p.name] == nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "%d tokens: %s\n", tokens, p.name)
		measured, err := measure(p, dir, bcrypt.MinCost, func(m *row, _ string, rss func() float64) error {
			if err := fill(addr, tokens); err != nil {
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
	if rounds > 0 {
		table(peers, results, dir)
	}
	_, err = measure(peers[0], dir, bcrypt.DefaultCost, func(_ *row, token string, _ func() float64) error {
		return besideBare(dir, token)
	})
	return err
}

// besideBare compares the service, which is up, with a bare net/http handler.
func besideBare(dir, token string) error {
	const bareAddr = "127.0.0.1:18001"
	bare := exec.Command(filepath.Join(dir, "bench"), "-serve", "bare", "-addr", bareAddr)
	if err := bare.Start(); err != nil {
		return err
	}
	defer kill(bare)
	return inTurn("the service", addr, token, "a bare net/http handler", bareAddr, token)
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

func kill(program *exec.Cmd) {
	program.Process.Kill()
	program.Wait()
}

// besideEtcd compares a replica that shares its tokens by etcd with a service
// of one machine, and tells how soon a replica that starts is healthy.
func besideEtcd(dir string, tokens int) error {
	const (
		etcdURL   = "http://127.0.0.1:18079"
		aloneAddr = "127.0.0.1:18001"
	)
	users := filepath.Join(dir, "users.json")
	program := filepath.Join(dir, "simple-oauth2")
	etcd := exec.Command("etcd", "--data-dir", filepath.Join(dir, "etcd"), "--log-level", "error", "--listen-client-urls", etcdURL,
		"--advertise-client-urls", etcdURL, "--listen-peer-urls", "http://127.0.0.1:18080")
	if err := etcd.Start(); err != nil {
		return err
	}
	defer kill(etcd)
	p := peer{"with etcd", func(_, users string) *exec.Cmd {
		return exec.Command(program, "-addr", addr, "-users", users, "-etcd", etcdURL, "-max-failures", "0")
	}, nil}
	healthy := func(addr string) error {
		for began := time.Now(); ; time.Sleep(time.Millisecond) {
			response, err := http.Get("http://" + addr + "/healthz")
			if err == nil {
				response.Body.Close()
				if response.StatusCode == http.StatusOK {
					return nil
				}
			}
			if time.Since(began) > time.Minute {
				return errors.New("not healthy")
			}
		}
	}
	_, err := measure(p, dir, bcrypt.MinCost, func(*row, string, func() float64) error {
		if err := healthy(addr); err != nil {
			return err
		}
		return fill(addr, tokens)
	})
	if err != nil {
		return err
	}
	alone := exec.Command(program, "-addr", aloneAddr, "-users", users, "-max-failures", "0")
	if err := alone.Start(); err != nil {
		return err
	}
	defer kill(alone)
	if err := healthy(aloneAddr); err != nil {
		return err
	}
	if err := fill(aloneAddr, tokens); err != nil {
		return err
	}
	began := time.Now()
	_, err = measure(p, dir, bcrypt.DefaultCost, func(_ *row, token string, rss func() float64) error {
		if err := healthy(addr); err != nil {
			return err
		}
		took := time.Since(began).Seconds()
		var status struct {
			Size float64 `json:"dbSize,string"`
		}
		response, err := http.Post(etcdURL+"/v3/maintenance/status", "application/json", strings.NewReader("{}"))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(&status); err != nil {
			return err
		}
		fmt.Printf("\nhealthy %.1f s after its start with %d tokens in etcd, %.0f MB; etcd's database takes %.0f bytes a token\n",
			took, tokens, rss(), status.Size/float64(tokens))
		alone.Process.Signal(syscall.SIGHUP) // for the hash of the usual cost, which measure has written
		aloneToken, _, err := login(http.DefaultClient, aloneAddr, "secret")
		if err != nil {
			return err
		}
		if err := inTurn("with etcd", addr, token, "without", aloneAddr, aloneToken); err != nil {
			return err
		}
		for _, at := range []string{addr, aloneAddr, addr, aloneAddr} {
			rate, err := logins(dir, at)
			if err != nil {
				return err
			}
			fmt.Printf("logins/s at %s (%s has etcd): %.1f\n", at, addr, rate)
		}
		return nil
	})
	return err
}

// logins is how many logins a second eight clients get.
func logins(dir, addr string) (float64, error) {
	script := filepath.Join(dir, "login.lua")
	text := "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/x-www-form-urlencoded'\nwrk.body = 'username=johndoe&password=secret'\n"
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		return 0, err
	}
	out, err := exec.Command("wrk", "-t1", "-c8", "-d10s", "--timeout", "60s", "-s", script, "http://"+addr+"/token").CombinedOutput()
	if err != nil {
		return 0, err
	}
	found := perSecond.FindSubmatch(out)
	if wrong := not200.Find(out); wrong != nil || found == nil {
		return 0, fmt.Errorf("wrk: %s", out)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}

// measure starts p with a user whose hash has the cost, checks that it answers
// right, and lets take measure it.
func measure(p peer, dir string, cost int, take func(m *row, token string, rss func() float64) error) (m row, err error) {
	m.start, err = started(p, dir, cost, func(rss func() float64) error {
		token, err := check()
		if err != nil {
			return err
		}
		return take(&m, token, rss)
	})
	return m, err
}

// started starts p with a user whose hash has the cost, and lets use have it. It
// returns the milliseconds to its first answer.
func started(p peer, dir string, cost int, use func(rss func() float64) error) (start float64, err error) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), cost)
	if err != nil {
		return 0, err
	}
	users := filepath.Join(dir, "users.json")
	text := fmt.Sprintf(`{"johndoe": {"full_name": "John Doe", "email": "johndoe@example.com", "disabled": false, "hashed_password": %[1]q},
		"gate": {"hashed_password": %[1]q, "scopes": ["introspect"]}}`, hash)
	if err := os.WriteFile(users, []byte(text), 0o600); err != nil {
		return 0, err
	}
	service := p.command(dir, users)
	service.Env = append(os.Environ(), "BENCH_HASH="+string(hash))
	began := time.Now()
	if err := service.Start(); err != nil {
		return 0, err
	}
	defer kill(service)
	for {
		response, err := http.Get("http://" + addr + "/users/me")
		if err == nil {
			response.Body.Close()
			break
		}
		if time.Since(began) > 10*time.Second {
			return 0, errors.New("does not answer")
		}
		time.Sleep(time.Millisecond)
	}
	start = float64(time.Since(began).Microseconds()) / 1000
	return start, use(func() float64 {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", service.Process.Pid))
		found := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
		if found == nil {
			return 0
		}
		kB, _ := strconv.ParseFloat(string(found[1]), 64)
		return kB / 1024
	})
}

// check wants the tutorial's answers, and returns a token.
func check() (string, error) {
	token, status, err := login(http.DefaultClient, addr, "secret")
	if err != nil || status != 200 {
		return "", fmt.Errorf("right password: %d %w", status, err)
	}
	if _, status, err := login(http.DefaultClient, addr, "wrong"); err != nil || status/100 != 4 && status != 500 {
		return "", fmt.Errorf("wrong password: %d %w", status, err)
	}
	for _, tt := range []struct {
		token string
		want  int
	}{{token, 200}, {"nonsense", 401}} {
		r, _ := http.NewRequest("GET", "http://"+addr+"/users/me", nil)
		r.Header.Set("Authorization", "Bearer "+tt.token)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			return "", err
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != tt.want || tt.want == 200 && string(body) != string(johndoe) {
			return "", fmt.Errorf("/users/me: %d %s", response.StatusCode, body)
		}
	}
	return token, nil
}

func login(client *http.Client, addr, password string) (token string, status int, err error) {
	response, err := client.PostForm("http://"+addr+"/token", url.Values{"username": {"johndoe"}, "password": {password},
		"grant_type": {"password"}, "client_id": {"app"}, "client_secret": {"any"}})
	if err != nil {
		return "", 0, err
	}
	defer response.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	json.NewDecoder(response.Body).Decode(&answer)
	return answer.AccessToken, response.StatusCode, nil
}

// load runs wrk on /users/me alone, and then while clients guess and an honest
// one at another address logs in, a second after each answer.
func load(p peer, dir string, seconds int, token string, m *row) (err error) {
	if m.calm, m.calmP99, err = wrk(addr, seconds, token); err != nil {
		return err
	}
	guess := exec.Command("wrk", "-t1", "-c"+strconv.Itoa(guessers), "-d"+strconv.Itoa(seconds+2)+"s", "--timeout", "60s",
		"-s", filepath.Join(dir, "guess.lua"), "http://"+addr+"/token")
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
				m.refused++
			}
			took = append(took, float64(time.Since(began).Microseconds())/1000)
		}
	})
	m.guessed, m.guessedP99, err = wrk(addr, seconds, token)
	close(stop)
	honest.Wait()
	guess.Wait()
	m.honest = median(took)
	return err
}

var (
	perSecond = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	p99       = regexp.MustCompile(`99%\s+([\d.]+)(us|ms|s)`)
	not200    = regexp.MustCompile(`Non-2xx or 3xx responses: \d+`)
)

// wrk loads /users/me with 64 connections.
func wrk(addr string, seconds int, token string) (rate, latency float64, err error) {
	out, err := exec.Command("wrk", "-t1", "-c64", "-d"+strconv.Itoa(seconds)+"s", "--timeout", "60s", "--latency",
		"-H", "Authorization: Bearer "+token, "http://"+addr+"/users/me").CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	if wrong := not200.Find(out); wrong != nil {
		return 0, 0, fmt.Errorf("wrk: %s", wrong)
	}
	r, l := perSecond.FindSubmatch(out), p99.FindSubmatch(out)
	if r == nil || l == nil {
		return 0, 0, fmt.Errorf("wrk: %s", out)
	}
	rate, _ = strconv.ParseFloat(string(r[1]), 64)
	latency, _ = strconv.ParseFloat(string(l[1]), 64)
	return rate, latency * map[string]float64{"us": 0.001, "ms": 1, "s": 1000}[string(l[2])], nil
}

// fill logs in until n tokens are out.
func fill(addr string, n int) error {
	var clients sync.WaitGroup
	const at = 14
	failed := make(chan error, at)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: at}}
	for range at {
		clients.Go(func() {
			for range n / at {
				if _, status, err := login(client, addr, "secret"); err != nil || status != 200 {
					failed <- fmt.Errorf("login: %d %w", status, err)
					return
				}
			}
		})
	}
	clients.Wait()
	close(failed)
	return <-failed
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func size(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}

func table(peers []peer, results map[string][]row, dir string) {
	of := func(name string, figure func(row) float64) float64 {
		var values []float64
		for _, r := range results[name] {
			values = append(values, figure(r))
		}
		return median(values)
	}
	names := []string{}
	for _, p := range peers {
		if results[p.name] != nil {
			names = append(names, p.name)
		}
	}
	fmt.Printf("| | %s |\n|%s\n", strings.Join(names, " | "), strings.Repeat(" --- |", len(names)+1))
	for _, line := range []struct {
		title, format string
		figure        func(row) float64
	}{
		{"`/users/me`, requests/s", "%.0f", func(r row) float64 { return r.calm }},
		{"its 99th percentile, ms", "%.1f", func(r row) float64 { return r.calmP99 }},
		{"`/users/me` while 64 clients guess, requests/s", "%.0f", func(r row) float64 { return r.guessed }},
		{"its 99th percentile, ms", "%.1f", func(r row) float64 { return r.guessedP99 }},
		{"an honest login meanwhile, ms", "%.0f", func(r row) float64 { return r.honest }},
		{"honest logins that failed", "%.0f", func(r row) float64 { return r.refused }},
		{"memory when idle, MB", "%.0f", func(r row) float64 { return r.idle }},
		{"memory with the tokens, MB", "%.0f", func(r row) float64 { return r.filled }},
		{"start to first answer, ms", "%.0f", func(r row) float64 { return r.start }},
	} {
		fmt.Printf("| %s |", line.title)
		for _, name := range names {
			fmt.Printf(" "+line.format+" |", of(name, line.figure))
		}
		fmt.Println()
	}
	fmt.Print("| what is shipped, MB |")
	for _, p := range peers {
		if results[p.name] == nil {
			continue
		}
		if p.shipped == nil {
			fmt.Print(" |")
			continue
		}
		fmt.Printf(" %.1f |", float64(p.shipped(dir))/1e6)
	}
	fmt.Println()
}
