package e2e

import (
	"bufio"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestHashOnTerminal types a password into a terminal twice, pipes one, and gives up
// with Ctrl-C. The terminal never shows the password, and afterwards it shows again
// what is typed.
func TestHashOnTerminal(t *testing.T) {
	hash := regexp.MustCompile(`\$2a\$04\$[./A-Za-z0-9]{53}\r?\n`)
	piped := exec.Command(program, "hash", "-cost", "4")
	piped.Stdin = strings.NewReader("secret\n")
	out, err := piped.CombinedOutput()
	if err != nil || !regexp.MustCompile("^"+hash.String()+"$").Match(out) {
		t.Errorf("from a pipe: %v\n%s", err, out)
	}
	for _, tt := range []struct {
		name  string
		typed []string // after each question
		code  string
	}{
		{"twice the same", []string{"hunter2\n", "hunter2\n"}, "0"},
		{"two passwords", []string{"hunter2\n", "hunter3\n"}, "1"},
		{"Ctrl-C", []string{"hunter2\x03"}, "130"},
		{"Ctrl-C at once", []string{"\x03"}, "130"},
		{"Ctrl-C the second time", []string{"hunter2\n", "\x03"}, "130"},
		{"Ctrl-\\", []string{"hunter2\x1c"}, "131"},
		{"Ctrl-Z, which does nothing", []string{"\x1ahunter2\n", "hunter2\n"}, "0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			said := onTerminal(t, "trap : INT QUIT; "+program+" hash -cost 4; echo code $?; stty -a", tt.typed)
			if !strings.Contains(said, "code "+tt.code+"\r\n") || hash.MatchString(said) != (tt.code == "0") {
				t.Errorf("want code %s:\n%s", tt.code, said)
			}
			if strings.Contains(said, "hunter") || !regexp.MustCompile(`\secho\s`).MatchString(said) {
				t.Errorf("the terminal shows the password, or nothing afterwards:\n%s", said)
			}
		})
	}
}

// onTerminal runs a shell's commands on a terminal, and returns what it shows. Each of
// the texts is typed after a line that the commands show.
func onTerminal(t *testing.T, shell string, typed []string) (said string) {
	t.Helper()
	terminal := exec.Command("timeout", "10", "script", "-qec", shell, "/dev/null")
	keys, err := terminal.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	shown, err := terminal.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := terminal.Start(); err != nil {
		t.Fatal(err)
	}
	screen := bufio.NewReader(shown)
	for _, typed := range typed {
		line, err := screen.ReadString('\n') // it waits for the password
		if err != nil {
			t.Fatal(err)
		}
		said += line
		io.WriteString(keys, typed)
	}
	rest, _ := io.ReadAll(screen) // until the shell ends
	terminal.Wait()
	return said + string(rest)
}

// TestHelp checks that -h begins with the commands, and says that each flag has a
// variable.
func TestHelp(t *testing.T) {
	out, err := exec.Command(program, "-h").CombinedOutput()
	const begins = "usage: simple-oauth2 [flags] | user COMMAND | hash [-cost N] | healthcheck [flags] | -version\n" +
		"Each flag can also be set in the environment: OAUTH2_TOKEN_TTL for -token-ttl. The flag wins.\n"
	if err != nil || !strings.HasPrefix(string(out), begins) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestEnd has the program end by an error: one of the log's lines, if there is a
// log by then, and else a plain line.
func TestEnd(t *testing.T) {
	for args, want := range map[string]string{
		"-log-format text -addr nowhere":   `^time=\S+Z level=ERROR msg=exiting error="-addr: listen tcp: address nowhere: missing port in address[^\n]*"\n$`,
		"-log-format json -addr nowhere":   `^\{"time":"[^"]+Z","level":"ERROR","msg":"exiting","error":"-addr: listen tcp: address nowhere: missing port in address[^\n]*"\}\n$`,
		"-log-format json -adr nowhere":    `^simple-oauth2: unknown flag -adr[^\n]*\n$`,
		"-log-format json -tls-cert a.pem": `^simple-oauth2: -tls-cert and -tls-key go together[^\n]*\n$`,
		"hash -cost 99":                    `^simple-oauth2: -cost 99: [^\n]*\n$`,
		"healthcheck -addr 127.0.0.1:1":    `^simple-oauth2: not healthy: [^\n]*\n$`,
	} {
		out, err := exec.Command(program, strings.Fields(args)...).CombinedOutput()
		if err == nil || !regexp.MustCompile(want).Match(out) {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
}

// TestFail2ban guesses from some addresses, with usernames that would put another
// address into the log, and wants fail2ban to find those that guessed.
func TestFail2ban(t *testing.T) {
	if _, err := exec.LookPath("fail2ban-regex"); err != nil {
		t.Skip("no fail2ban-regex here: Debian's fail2ban has it")
	}
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			addr := freeAddrs(t, 1)[0]
			p := &process{t: t, name: program, url: "http://" + addr, log: filepath.Join(t.TempDir(), "log"),
				args: []string{"-addr", addr, "-log-format", format, "-trusted-proxies", "127.0.0.1"}}
			p.start()
			t.Cleanup(p.kill)
			for status := 0; status != 200; {
				status, _, _, _ = ask(p, "/healthz", "", nil)
			}
			began := time.Now().Truncate(time.Second)
			var want []string
			for i, guess := range []struct{ username, password string }{
				{"johndoe", "wrong"},
				{"johndoe", "secret"}, // right
				{"", ""},              // not a login
				{`x client=192.0.2.66`, "wrong"},
				{`x" client=192.0.2.66 y="`, "wrong"},
				{`\" client=192.0.2.66 `, "wrong"},
				{"x\ntime=2026-11-25T05:00:00.000Z level=WARN msg=\"login failed\" client=192.0.2.66 ", "wrong"},
				{"level=WARN msg=\"login failed\" client=192.0.2.66 ", "wrong"},
				{`","client":"192.0.2.66"`, "wrong"},
				{"\n{\"time\":\"2026\",\"level\":\"WARN\",\"msg\":\"login failed\",\"client\":\"192.0.2.66\"}", "wrong"},
			} {
				client := "2001:db8:" + strconv.Itoa(i) + "::1"
				if i%2 == 0 {
					client = "192.0.2." + strconv.Itoa(i)
				}
				if guess.password == "wrong" {
					want = append(want, client)
				}
				form := url.Values{"username": {guess.username}, "password": {guess.password}, "client_id": {guess.username}}
				request, _ := http.NewRequest("POST", p.url+"/token", strings.NewReader(form.Encode()))
				request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				request.Header.Set("X-Forwarded-For", client)
				request.Header.Set("X-Request-ID", `"client=192.0.2.66`)
				response, err := http.DefaultClient.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
			regex := exec.Command("fail2ban-regex", "--out", "row", p.log, "../examples/fail2ban/simple-oauth2.conf")
			regex.Env = append(os.Environ(), "TZ=Asia/Tokyo") // the log is in UTC
			out, err := regex.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var found []string
			for _, row := range regexp.MustCompile(`(?m)^\['(\S+)',\s+(\d+)`).FindAllStringSubmatch(string(out), -1) {
				found = append(found, row[1])
				if at, _ := strconv.ParseInt(row[2], 10, 64); at < began.Unix() || at > time.Now().Unix() {
					t.Errorf("%s was found at %d, but the time is %d", row[1], at, time.Now().Unix())
				}
			}
			if strings.Join(found, " ") != strings.Join(want, " ") {
				log, _ := os.ReadFile(p.log)
				t.Errorf("found %s, want %s\n%s", found, want, log)
			}
		})
	}
}

// TestSystemdUnit lets systemd check the unit and rate its exposure, and starts
// the program as the unit does.
func TestSystemdUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("no systemd-analyze here: Debian's systemd has it")
	}
	text, err := os.ReadFile("../examples/systemd/simple-oauth2.service")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	unit := filepath.Join(dir, "simple-oauth2.service")
	here := strings.Replace(string(text), "/usr/local/bin/simple-oauth2", program, 1)
	if err := os.WriteFile(unit, []byte(here), 0o600); err != nil {
		t.Fatal(err)
	}
	// Without the option it also tells of units of other packages.
	verify := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit)
	if out, err := verify.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	// In tenths, from 0 to 100: at 0 it may do nothing, at 100 everything.
	if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", unit).CombinedOutput(); err != nil {
		t.Errorf("security: %v\n%s", err, out)
	}
	command := regexp.MustCompile(`(?m)^ExecStart=\S+ (.*)$`).FindStringSubmatch(string(text))
	if command == nil {
		t.Fatal("no ExecStart")
	}
	users := `{"jane": {"hashed_password": "$2a$12$Utorln/cnSyG7X5Csg1/euh9zgDiaOtYcCJ29h/Oe5tTNXN7pJwJS"}}`
	if err := os.WriteFile(filepath.Join(dir, "users.json"), []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	args := strings.NewReplacer("/etc/simple-oauth2", dir, "/var/lib/simple-oauth2", dir).Replace(command[1])
	start(t, strings.Fields(args)...)
}
