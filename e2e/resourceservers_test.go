package e2e

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestResourceServers runs servers that introspect for each request or login,
// and wants them to let in who has a live token with the scope items:read.
func TestResourceServers(t *testing.T) {
	for _, server := range []struct {
		name string // the folder in testdata, and more after a space
		run  func(s *stage)
		lets func(s *stage, username, token string) bool // lets in username with the token
	}{
		{"django-oauth-toolkit", func(s *stage) {
			s.run("/usr/bin/python3", filepath.Join(s.dir, "main.py"))
		}, func(s *stage, username, token string) bool {
			status, _, body := s.send("GET", "/items/1", []string{"Authorization: Bearer " + token}, "")
			return status == 200 && body == username
		}},
		{"dovecot XOAUTH2", (*stage).runDovecot, func(s *stage, username, token string) bool {
			return s.dovecotLogin(username, "XOAUTH2", "user="+username+"\x01auth=Bearer "+token+"\x01\x01")
		}},
		{"dovecot OAUTHBEARER", (*stage).runDovecot, func(s *stage, username, token string) bool {
			return s.dovecotLogin(username, "OAUTHBEARER", "n,a="+username+",\x01auth=Bearer "+token+"\x01\x01")
		}},
	} {
		t.Run(server.name, func(t *testing.T) {
			t.Parallel()
			folder, _, _ := strings.Cut(server.name, " ")
			s := newStage(t, filepath.Join("testdata", folder), "")
			server.run(s)
			for _, tt := range []struct {
				what, username, token string
				want                  bool
			}{
				{"a live token", "jane", s.tokens["jane"], true},
				{"more scopes", "zoe", s.tokens["zoe"], true},
				{"the token of another", "bob", s.tokens["jane"], false},
				{"no scope", "bob", s.tokens["bob"], false},
				{"disabled from the start", "alice", s.tokens["alice"], false},
				{"no such token", "jane", "nonsense", false},
			} {
				if got := server.lets(s, tt.username, tt.token); got != tt.want {
					t.Errorf("%s: %t", tt.what, got)
				}
			}
			// A server may remember a token that was live, for a second as it is set here.
			ends := func(what, username, token string) {
				t.Helper()
				for deadline := time.Now().Add(20 * time.Second); server.lets(s, username, token); time.Sleep(20 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Errorf("%s: is let in", what)
						return
					}
				}
			}
			gone := s.login("jane")
			if !server.lets(s, "jane", gone) {
				t.Error("before the revocation: is not let in")
			}
			ask(s.service, "/revoke", "", url.Values{"token": {gone}})
			ends("revoked", "jane", gone)
			s.writeUsers(true)
			s.service.signal(syscall.SIGHUP)
			ends("disabled while logged in", "jane", s.tokens["jane"])
			s.serviceHash = s.hash
			s.writeUsers(false)
			s.service.signal(syscall.SIGHUP)
			ends("a server whose own password is wrong", "zoe", s.tokens["zoe"])
		})
	}
}

// runDovecot starts Dovecot's auth service. It stays root, since the folder of the
// test is closed to the user that it would become.
func (s *stage) runDovecot() {
	run := filepath.Join(s.dir, "run")
	s.write("dovecot.conf", "base_dir = "+run+"\nstate_dir = "+run+"\ndefault_internal_user = root\ndefault_internal_group = root\n"+
		strings.ReplaceAll(s.read("dovecot.conf"), "/etc/dovecot", s.dir))
	dovecot := &process{t: s.t, name: "dovecot", args: []string{"-F", "-c", filepath.Join(s.dir, "dovecot.conf")}, url: "http://" + s.addr, log: filepath.Join(s.dir, "example.log")}
	s.start(dovecot)
	s.t.Cleanup(func() { // before it is killed: it ends its children
		dovecot.signal(syscall.SIGTERM)
		dovecot.cmd.Wait()
	})
}

// dovecotLogin asks Dovecot as a mail server does: whether a client that sends a
// message by a SASL mechanism is username.
func (s *stage) dovecotLogin(username, mechanism, message string) bool {
	s.t.Helper()
	conn, err := net.DialTimeout("tcp", s.addr, 20*time.Second)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	// The number in CPID shall be unique among the connections, as their ports are.
	// By no-penalty a refusal does not delay the next login.
	fmt.Fprintf(conn, "VERSION\t1\t1\nCPID\t%d\nAUTH\t1\t%s\tservice=smtp\tno-penalty\tresp=%s\n",
		conn.LocalAddr().(*net.TCPAddr).Port, mechanism, base64.StdEncoding.EncodeToString([]byte(message)))
	answer := bufio.NewScanner(conn)
	for answer.Scan() {
		switch fields := strings.Split(answer.Text(), "\t"); fields[0] {
		case "OK":
			return slices.Contains(fields, "user="+username)
		case "FAIL":
			return false
		case "CONT": // it has said why not, and waits for the client to have heard it
			fmt.Fprint(conn, "CONT\t1\tAQ==\n")
		}
	}
	s.t.Fatalf("Dovecot: no verdict: %v", answer.Err())
	return false
}
