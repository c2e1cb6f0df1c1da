package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/crypto/bcrypt"
)

// introspect compares four requests: /users/me, /introspect by a bearer token and
// by HTTP Basic, and the same form sent to a bare net/http handler. It does so with
// eleven starts of the service, since one start may be faster than another by
// several percent.
func (b *bench) introspect() error {
	var rates [4]figures
	var bearer, toBare, basic figures
	for range 11 {
		_, err := measure(b.peers[0], b.dir, bcrypt.DefaultCost, func(_ *row, token string, _ func() float64) error {
			bare, err := b.startBare()
			if err != nil {
				return err
			}
			defer kill(bare)
			rate, err := besideUsersMe(b.dir, token)
			for i := range rate {
				rates[i] = append(rates[i], rate[i])
			}
			bearer, toBare, basic = append(bearer, rate[1]/rate[0]), append(toBare, rate[1]/rate[3]), append(basic, rate[2]/rate[1])
			return err
		})
		if err != nil {
			return err
		}
	}
	fmt.Println("\nrequests/s, the median of eleven starts (lowest to highest):")
	for i, name := range []string{"/users/me", "/introspect by bearer token", "/introspect by HTTP Basic", "a bare net/http handler that reads the form"} {
		fmt.Println(name, rates[i].in("%.0f"))
	}
	fmt.Printf("ratios: by bearer token to /users/me %s and to the bare handler %s, by HTTP Basic to by bearer token %s\n",
		bearer.in("%.3f"), toBare.in("%.3f"), basic.in("%.3f"))
	return nil
}

// besideUsersMe loads the four in turn, five times for a second each, in an order
// that chance decides, and returns the median of each one's requests a second.
func besideUsersMe(dir, token string) (rate [4]float64, err error) {
	response, err := http.PostForm("http://"+addr+"/token", url.Values{"username": {"gate"}, "password": {"secret"}, "scope": {"introspect"}})
	if err != nil {
		return rate, err
	}
	defer response.Body.Close()
	var gate struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&gate); err != nil {
		return rate, err
	}
	script := filepath.Join(dir, "introspect.lua")
	text := "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/x-www-form-urlencoded'\nwrk.body = 'token=" + token + "'\n"
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		return rate, err
	}
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("gate:secret"))
	loads := [4]struct {
		url, authorization string
		args               []string
	}{
		{addr + "/users/me", "Bearer " + token, nil},
		{addr + "/introspect", "Bearer " + gate.AccessToken, []string{"-s", script}},
		{addr + "/introspect", basic, []string{"-s", script}},
		{bareAddr + "/introspect", "Bearer " + gate.AccessToken, []string{"-s", script}},
	}
	var rates [4][]float64
	for range 5 {
		for _, i := range rand.Perm(len(loads)) {
			args := append(loads[i].args, "-t1", "-c64", "-d1s", "-H", "Authorization: "+loads[i].authorization, "http://"+loads[i].url)
			out, err := exec.Command("wrk", args...).CombinedOutput()
			found, wrong := perSecond.FindSubmatch(out), not200.Find(out)
			if err != nil || found == nil || wrong != nil {
				return rate, fmt.Errorf("wrk: %v\n%s", err, out)
			}
			one, _ := strconv.ParseFloat(string(found[1]), 64)
			rates[i] = append(rates[i], one)
		}
	}
	for i := range rates {
		rate[i] = median(rates[i])
	}
	return rate, nil
}
