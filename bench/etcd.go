package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// etcd compares a replica that shares its tokens by etcd with a service
// of one machine, and tells how soon a replica that starts is healthy.
func (b *bench) etcd() error {
	const (
		etcdURL   = "http://127.0.0.1:18079"
		aloneAddr = "127.0.0.1:18001"
	)
	users := filepath.Join(b.dir, "users.json")
	program := filepath.Join(b.dir, "simple-oauth2")
	etcd := exec.Command("etcd", "--data-dir", filepath.Join(b.dir, "etcd"), "--log-level", "error", "--listen-client-urls", etcdURL,
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
	_, err := measure(p, b.dir, bcrypt.MinCost, func(*row, string, func() float64) error {
		if err := healthy(addr); err != nil {
			return err
		}
		return fill(addr, b.tokens)
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
	if err := fill(aloneAddr, b.tokens); err != nil {
		return err
	}
	began := time.Now()
	_, err = measure(p, b.dir, bcrypt.DefaultCost, func(_ *row, token string, rss func() float64) error {
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
			took, b.tokens, rss(), status.Size/float64(b.tokens))
		alone.Process.Signal(syscall.SIGHUP) // for the hash of the usual cost, which measure has written
		aloneToken, _, err := login(http.DefaultClient, aloneAddr, "secret")
		if err != nil {
			return err
		}
		if err := inTurn("with etcd", addr, token, "without", aloneAddr, aloneToken); err != nil {
			return err
		}
		for _, at := range []string{addr, aloneAddr, addr, aloneAddr} {
			rate, err := logins(b.dir, at)
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
