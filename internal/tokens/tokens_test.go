package tokens_test

import (
	"context"
	"encoding/base64"
	"flag"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/tokens"
	"simple-oauth2/internal/tokens/conformance"
)

// TestRunSweeps runs in a bubble, where time passes instantly.
func TestRunSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		memory := &tokens.Memory{Now: time.Now}
		go memory.Run(ctx)
		for i, lifetime := range []time.Duration{5, 10, 11, 100} {
			memory.Put(ctx, tokens.Key{byte(i)}, &tokens.Record{Expires: time.Now().Add(lifetime * time.Second).Unix()})
		}
		for _, tt := range []struct {
			wait time.Duration
			kept int
		}{
			{9 * time.Second, 4},
			{time.Second, 2},
			{10 * time.Second, 1},
			{80 * time.Second, 0},
		} {
			time.Sleep(tt.wait)
			synctest.Wait()
			kept := 0
			memory.Retain(func(tokens.Key) bool { kept++; return true })
			if kept != tt.kept {
				t.Errorf("%d records, want %d", kept, tt.kept)
			}
		}
		stop()
	})
}

// TestNew makes many tokens: each is 32 bytes, all of them random.
func TestNew(t *testing.T) {
	var values [32]map[byte]bool
	for range 64 {
		token, err := base64.RawURLEncoding.DecodeString(tokens.New())
		if err != nil || len(token) != 32 {
			t.Fatalf("%d bytes, %v; want 32", len(token), err)
		}
		for i, value := range token {
			if values[i] == nil {
				values[i] = make(map[byte]bool)
			}
			values[i][value] = true
		}
	}
	for i := range values {
		if n := len(values[i]); n < 32 { // of 64, some are equal
			t.Errorf("byte %d has only %d values", i, n)
		}
	}
}

func TestMemory(t *testing.T) {
	conformance.Run(t, func(*testing.T) tokens.Store { return &tokens.Memory{Now: time.Now} })
}

// TestLive counts tokens that come and go, some of them twice.
func TestLive(t *testing.T) {
	now := time.Unix(1700000000, 0)
	memory := &tokens.Memory{Now: func() time.Time { return now }}
	put := func(i byte) { memory.Put(t.Context(), tokens.Key{i}, &tokens.Record{Expires: now.Unix() + int64(i)}) }
	forget := func(i byte) { memory.Delete(t.Context(), tokens.Key{i}) }
	for _, tt := range []struct {
		name string
		do   func()
		want int
	}{
		{"none", func() {}, 0},
		{"four", func() { put(1); put(2); put(3); put(4) }, 4},
		{"one again", func() { put(3) }, 4},
		{"one gone", func() { forget(4) }, 3},
		{"one gone twice", func() { forget(4) }, 3},
		{"one over", func() { now = now.Add(time.Second); memory.Sweep() }, 2},
		{"one kept", func() { memory.Retain(func(key tokens.Key) bool { return key[0] == 3 }) }, 1},
	} {
		if tt.do(); memory.Live() != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, memory.Live(), tt.want)
		}
	}
}

// TestTerms asks which tokens count, before and after a user is logged out at
// 1700000000.5.
func TestTerms(t *testing.T) {
	at := func(millis int64) time.Time { return time.UnixMilli(1700000000000 + millis) }
	hash, other := []byte("a hash"), []byte("another")
	before, after := tokens.TermsOf(hash, time.Time{}, 0), tokens.TermsOf(hash, at(500), 0)
	ahead := tokens.TermsOf(hash, at(500).AddDate(1, 0, 0), 0)
	for _, tt := range []struct {
		name   string
		terms  tokens.Terms // under which the token is issued
		at     time.Time
		judge  tokens.Terms
		wanted bool
	}{
		{name: "never logged out", terms: before, at: at(0), judge: before, wanted: true},
		{name: "another hash", terms: before, at: at(0), judge: tokens.TermsOf(other, time.Time{}, 0)},
		{name: "a moment before", terms: before, at: at(499), judge: after},
		{name: "less than a millisecond before", terms: before, at: at(500).Add(-1), judge: after},
		{name: "at that moment", terms: before, at: at(500), judge: after, wanted: true},
		{name: "before the file is reloaded", terms: before, at: at(700), judge: after, wanted: true},
		{name: "after it is", terms: after, at: at(700), judge: after, wanted: true},
		{name: "after it is, and the clock is behind", terms: after, at: at(-60_000), judge: after, wanted: true},
		{name: "and logged out again", terms: after, at: at(700), judge: tokens.TermsOf(hash, at(701), 0)},
		{name: "by a not_before of next year, and then by that of now", terms: ahead, at: at(0), judge: after},
		{name: "after a not_before of next year was mended", terms: ahead, at: at(1000), judge: after, wanted: true},
		{name: "while it is of next year", terms: ahead, at: at(0), judge: ahead, wanted: true},
		{name: "a part of a millisecond", terms: before, at: at(500), judge: tokens.TermsOf(hash, at(500).Add(1), 0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			record := &tokens.Record{Issued: tt.at.Unix(), Since: tt.terms.Since(tt.at), Credential: tt.terms.Credential}
			if got := tt.judge.Allow(record); got != tt.wanted {
				t.Errorf("it counts: %v, want %v", got, tt.wanted)
			}
		})
	}
	for issued, want := range map[int64]bool{1700000000: false, 1700000001: true} { // by an earlier release
		if got := after.Allow(&tokens.Record{Issued: issued, Credential: after.Credential}); got != want {
			t.Errorf("issued in second %d: %v, want %v", issued, got, want)
		}
	}
}

func TestTTLFlag(t *testing.T) {
	for _, tt := range []struct {
		text string
		want time.Duration // 0: refused
	}{
		{"30m", 30 * time.Minute}, {"1s", time.Second}, {"8h30m", 510 * time.Minute}, {"87600h", 87600 * time.Hour},
		{"soon", 0}, {"30", 0}, {"0s", 0}, {"-1m", 0}, {"1500ms", 0}, {"500ms", 0}, {"", 0},
		{"87600h0m1s", 0}, {"2500000h", 0}, {"9999999h", 0},
	} {
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		var ttl time.Duration
		tokens.TTLFlag(flags, &ttl)
		if ttl != 30*time.Minute {
			t.Errorf("default %v", ttl)
		}
		if err := flags.Set("token-ttl", tt.text); (err == nil) != (tt.want > 0) || err == nil && ttl != tt.want {
			t.Errorf("%q is %v, %v; want %v", tt.text, ttl, err, tt.want)
		}
	}
}
