// Bench puts this service and its peers under the same load on the loopback,
// one after the other, and prints tables of medians, with the lowest and the
// highest of the rounds. It needs wrk and, for FastAPI, Debian's python3-fastapi, uvicorn,
// python3-bcrypt and python3-multipart; a peer that cannot be started is left out,
// with a message.
//
//	go run .                 all parts but etcd, some fifty minutes
//	go run . -only flood     /users/me, calm and while clients guess passwords
//	go run . -only bare      /users/me beside a bare net/http handler
//	go run . -only crowd     crowds that log in, and honest users beside guessers
//	go run . -only memory    the memory that logins of 64 KiB take, over 4,000 connections
//	go run . -only tls       the log of a flood of handshakes that fail
//	go run . -only introspect   /introspect beside /users/me, by bearer token and by HTTP Basic
//	go run . -only etcd      a replica that has etcd beside a service of one machine
//	go run . -only flood -spray   the guessers try a new username each time
//	go run . -rounds 1 -seconds 2 -tokens 1000   a quick look
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const addr = "127.0.0.1:18000"

// peer is a service to measure.
type peer struct {
	name    string
	command func(dir string, users string) *exec.Cmd
	shipped func(dir string) int64 // bytes
}

// bench has what all parts need: the folder with the built programs, and the
// values of the flags.
type bench struct {
	dir             string
	rounds, seconds int
	tokens          int
	spray           bool
	peers           []peer // this service is the first
}

// parts can each be measured alone.
var parts = []struct {
	name string
	run  func(*bench) error
}{
	{"flood", (*bench).flood},
	{"bare", (*bench).bare},
	{"memory", (*bench).memory},
	{"tls", (*bench).handshakes},
	{"introspect", (*bench).introspect},
	{"crowd", (*bench).crowds},
	{"etcd", (*bench).etcd},
}

func main() {
	b := &bench{}
	serve := flag.String("serve", "", "be a peer instead: bare or go-oauth2")
	serveAddr := flag.String("addr", addr, "the peer's address")
	only := flag.String("only", "", "the `part` to measure; without it all but etcd")
	flag.IntVar(&b.rounds, "rounds", 3, "rounds to take the median of")
	flag.IntVar(&b.seconds, "seconds", 10, "duration of each load")
	flag.IntVar(&b.tokens, "tokens", 100_000, "live tokens to measure the memory with")
	flag.BoolVar(&b.spray, "spray", false, "guess at a new username each time")
	flag.Parse()
	switch *serve {
	case "bare":
		serveBare(*serveAddr)
	case "go-oauth2":
		serveGoOAuth2(*serveAddr)
	}
	if err := b.run(*only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run builds what is measured, and measures one part or all but etcd.
func (b *bench) run(only string) error {
	if _, err := exec.LookPath("wrk"); err != nil {
		return err
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	for source, binary := range map[string]string{"..": "simple-oauth2", ".": "bench"} {
		if err := b.build(source, binary); err != nil {
			return err
		}
	}
	binary := func(dir string) int64 { return size(filepath.Join(dir, "bench")) }
	b.peers = []peer{
		{"simple-oauth2", func(dir, users string) *exec.Cmd {
			return exec.Command(filepath.Join(dir, "simple-oauth2"), "-addr", addr, "-users", users)
		}, func(dir string) int64 { return size(filepath.Join(dir, "simple-oauth2")) }},
		{"go-oauth2", func(dir, _ string) *exec.Cmd { return exec.Command(filepath.Join(dir, "bench"), "-serve", "go-oauth2") }, binary},
		{"FastAPI", func(string, string) *exec.Cmd {
			host, port, _ := net.SplitHostPort(addr)
			return exec.Command("/usr/bin/python3", "-m", "uvicorn", "fastapi_app:app", "--host", host, "--port", port, "--no-access-log", "--log-level", "error")
		}, nil},
	}
	found := false
	for _, part := range parts {
		if part.name != only && (only != "" || part.name == "etcd") {
			continue
		}
		found = true
		if err := part.run(b); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if !found {
		return fmt.Errorf("-only %s: there is no such part", only)
	}
	return nil
}

func (b *bench) build(source, binary string) error {
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(b.dir, binary), ".")
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// figures are one figure of all rounds.
type figures []float64

// in formats the median and, if the rounds differ, the lowest and the highest.
func (f figures) in(format string) string {
	if len(f) == 0 {
		return ""
	}
	sorted := slices.Sorted(slices.Values(f))
	text := fmt.Sprintf(format, sorted[len(sorted)/2])
	least, most := fmt.Sprintf(format, sorted[0]), fmt.Sprintf(format, sorted[len(sorted)-1])
	if least != most {
		text += " (" + least + " to " + most + ")"
	}
	return text
}

func kill(program *exec.Cmd) {
	program.Process.Kill()
	program.Wait()
}

// measure starts p with a user whose hash has the cost, checks that it answers
// right, and lets take measure it.
func measure(p peer, dir string, cost int, take func(m *row, token string, rss func() float64) error) (m row, err error) {
	m.start, err = started(p, dir, cost, 0, func(rss func() float64) error {
		token, err := check()
		if err != nil {
			return err
		}
		return take(&m, token, rss)
	})
	return m, err
}

// started starts p with johndoe and so many others, user0 and so on, whose hashes
// have the cost, and lets use have it. It returns the milliseconds to its first
// answer.
func started(p peer, dir string, cost, others int, use func(rss func() float64) error) (start float64, err error) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), cost)
	if err != nil {
		return 0, err
	}
	users := filepath.Join(dir, "users.json")
	text := fmt.Sprintf(`{"johndoe": {"full_name": "John Doe", "email": "johndoe@example.com", "disabled": false, "hashed_password": %[1]q},
		"gate": {"hashed_password": %[1]q, "scopes": ["introspect"]}`, hash)
	for i := range others {
		text += fmt.Sprintf(`, "user%d": {"hashed_password": %q}`, i, hash)
	}
	if err := os.WriteFile(users, []byte(text+"}"), 0o600); err != nil {
		return 0, err
	}
	free, err := net.Listen("tcp", addr) // or another program would be measured
	if err != nil {
		return 0, err
	}
	free.Close()
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
