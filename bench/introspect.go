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
// by HTTP Basic, and the same form sent to a bare net/http handler. It loads them
// in turn, as inTurn does.
func (b *bench) introspect() error {
	_, err := measure(b.peers[0], b.dir, bcrypt.DefaultCost, func(_ *row, token string, _ func() float64) error {
		bare, err := b.startBare()
		if err != nil {
			return err
		}
		defer kill(bare)
		return besideUsersMe(b.dir, token)
	})
	return err
}

func besideUsersMe(dir, token string) error {
	response, err := http.PostForm("http://"+addr+"/token", url.Values{"username": {"gate"}, "password": {"secret"}, "scope": {"introspect"}})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var gate struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&gate); err != nil {
		return err
	}
	script := filepath.Join(dir, "introspect.lua")
	text := "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/x-www-form-urlencoded'\nwrk.body = 'token=" + token + "'\n"
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		return err
	}
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("gate:secret"))
	loads := []struct {
		name, url, authorization string
		args                     []string
	}{
		{"/users/me", addr + "/users/me", "Bearer " + token, nil},
		{"/introspect by bearer token", addr + "/introspect", "Bearer " + gate.AccessToken, []string{"-s", script}},
		{"/introspect by HTTP Basic", addr + "/introspect", basic, []string{"-s", script}},
		{"a bare net/http handler that reads the form", bareAddr + "/introspect", "Bearer " + gate.AccessToken, []string{"-s", script}},
	}
	rates := make([][]float64, len(loads))
	for range 40 {
		for _, i := range rand.Perm(len(loads)) {
			args := append(loads[i].args, "-t1", "-c64", "-d1s", "-H", "Authorization: "+loads[i].authorization, "http://"+loads[i].url)
			out, err := exec.Command("wrk", args...).CombinedOutput()
			found, wrong := perSecond.FindSubmatch(out), not200.Find(out)
			if err != nil || found == nil || wrong != nil {
				return fmt.Errorf("wrk: %v\n%s", err, out)
			}
			rate, _ := strconv.ParseFloat(string(found[1]), 64)
			rates[i] = append(rates[i], rate)
		}
	}
	ratio := func(of, to int) float64 {
		var ratios []float64
		for turn := range rates[of] {
			ratios = append(ratios, rates[of][turn]/rates[to][turn])
		}
		return median(ratios)
	}
	bearer, basicToBearer, bearerToBare := ratio(1, 0), ratio(2, 1), ratio(1, 3) // before median sorts the rates
	fmt.Println("\nrequests/s in turns of one second:")
	for i, load := range loads {
		fmt.Printf("%s %.0f\n", load.name, median(rates[i]))
	}
	fmt.Printf("median of the ratios: by bearer token to /users/me %.3f and to the bare handler %.3f, by HTTP Basic to by bearer token %.3f\n",
		bearer, bearerToBare, basicToBearer)
	return nil
}
