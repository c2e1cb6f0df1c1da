package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// A way is shell commands: one that prepares the files, and one that changes what
// the service reads. Undo may be needed after the test.
type way struct{ name, before, change, undo string }

// ways are the ways in which people and programs put next in the place of file:
// files of the same size, and the same time of last writing.
var ways = []way{
	{name: "cp -p", change: `cp -p next file`},
	{name: "install -p", change: `install -p next file`},
	{name: "mv", change: `mv next file`},
	{name: "remove and create", change: `rm file && cp -p next file`},
	{name: "hard link", change: `ln -f next file`},
	{name: "written, and its time put back", change: `cat next >file && touch -r next file`},
	{name: "written by blocks", change: `dd if=next of=file conv=notrunc status=none && touch -r next file`},
	{name: "tar x", before: `mkdir pack && cp -p next pack/file && tar cf pack.tar -C pack file`,
		change: `tar xf pack.tar`},
	{name: "tar x --overwrite", before: `mkdir pack && cp -p next pack/file && tar cf pack.tar -C pack file`,
		change: `tar xf pack.tar --overwrite`},
	{name: "link turned", before: `mv file old && ln -s old file`, change: `ln -sfn next file`},
	{name: "links of a Secret",
		before: `mkdir v1 v2 && mv file v1 && cp -p next v2/file && ln -s v1 ..data && ln -s ..data/file file`,
		change: `ln -s v2 ..new && mv -T ..new ..data`},
	{name: "mount", change: `mount --bind next file`, undo: `umount file`},
}

// prepare writes file and next, with the same time and, by newlines at the end,
// with the same size.
func prepare(t *testing.T, way way, file, next []byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	size := max(len(file), len(next))
	written := time.Unix(1700000000, 0)
	for name, text := range map[string][]byte{"file": file, "next": next} {
		text = append(bytes.Clone(text), bytes.Repeat([]byte("\n"), size-len(text))...)
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, name), written, written); err != nil {
			t.Fatal(err)
		}
	}
	shell(t, dir, way.before)
	t.Cleanup(func() { shell(t, dir, way.undo) })
	return dir
}

// shell runs a command in a folder.
func shell(t *testing.T, dir, command string) {
	t.Helper()
	run := exec.Command("sh", "-ec", command)
	run.Dir = dir
	if out, err := run.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
}

// mayMount says whether this machine lets the tests mount.
func mayMount(t *testing.T) bool {
	dir := t.TempDir()
	if err := exec.Command("mount", "--bind", dir, dir).Run(); err != nil {
		t.Log("mounting is not permitted")
		return false
	}
	return exec.Command("umount", dir).Run() == nil
}

// TestFilesChange changes a file in each of the ways, once the service has loaded
// it. Within two seconds, a changed password ends the tokens and the password from
// before, and a renewed certificate is served, also to who resumes TLS sessions.
func TestFilesChange(t *testing.T) {
	users := func(password string) []byte {
		return fmt.Appendf(nil, `{"jane": {"hashed_password": %q}}`, hashOf(t, password))
	}
	login := func(k *keeper, password string) (token string, status int) {
		status, body := k.post("/token", url.Values{"username": {"jane"}, "password": {password}})
		var answer struct {
			AccessToken string `json:"access_token"`
		}
		json.Unmarshal(body, &answer)
		return answer.AccessToken, status
	}
	serial := func(addr string, client *tls.Config) int64 {
		conn, err := tls.Dial("tcp", addr, client)
		if err != nil {
			t.Error(err)
			return 0
		}
		defer conn.Close()
		io.WriteString(conn, "GET /livez HTTP/1.0\r\n\r\n")
		io.ReadAll(conn) // the ticket for another session comes with the answer
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	first, second := users("first"), users("second")
	changed := make(map[string]func() bool)
	for _, way := range ways {
		if way.name == "mount" && !mayMount(t) {
			continue
		}
		dir := prepare(t, way, first, second)
		url := "http://" + startIn(t, dir, "-users", "file")
		service := &keeper{process: &process{t: t, url: url}, told: make(map[string]int)}
		token, status := login(service, "first")
		if status != 200 {
			t.Fatalf("the first login: %d", status)
		}
		shell(t, dir, way.change)
		changed["users by "+way.name] = func() bool {
			if status, _, _, _ := ask(service.process, "/users/me", token, nil); status == 200 {
				return false
			}
			_, before := login(service, "first")
			_, after := login(service, "second")
			return before == 400 && after == 200
		}

		dir = prepare(t, way, certificate(t, 1), certificate(t, 2))
		addr := startIn(t, dir, "-tls-cert", "file", "-tls-key", "file")
		client := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		if n := serial(addr, client); n != 1 {
			t.Fatalf("the first certificate is number %d", n)
		}
		shell(t, dir, way.change)
		changed["certificate by "+way.name] = func() bool { return serial(addr, client) == 2 }
	}
	for deadline := time.Now().Add(5 * time.Second); len(changed) > 0; time.Sleep(50 * time.Millisecond) {
		maps.DeleteFunc(changed, func(_ string, is func() bool) bool { return is() })
		if time.Now().After(deadline) {
			t.Fatalf("not loaded again: %q", slices.Sorted(maps.Keys(changed)))
		}
	}
}

// TestFilesRefused puts something in the place of the users and of the certificate
// that must not be read, or not to its end. The service says so and reads the files
// again that come after it.
func TestFilesRefused(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("good.pem", certificate(t, 1))
	write("good.json", []byte("{}"))
	const putBack = "rm -rf pair.pem users.json && cp good.pem pair.pem && cp good.json users.json"
	shell(t, dir, putBack)
	addr := freeAddrs(t, 1)[0]
	users, pair := filepath.Join(dir, "users.json"), filepath.Join(dir, "pair.pem")
	k := &keeper{process: &process{t: t, name: program, url: "https://" + addr, log: filepath.Join(dir, "log"),
		args: []string{"-addr", addr, "-users", users, "-tls-cert", pair, "-tls-key", pair}}}
	k.expected = []string{"could not be loaded again, keeping the previous version"}
	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	wants := func(when, want string) {
		t.Helper()
		var body []byte
		for deadline := time.Now().Add(5 * time.Second); string(body) != want; time.Sleep(10 * time.Millisecond) {
			if response, err := insecure.Get(k.url + "/healthz"); err == nil {
				body, _ = io.ReadAll(response.Body)
				response.Body.Close()
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s, /healthz says %s, want %s", when, body, want)
			}
		}
	}
	k.start()
	t.Cleanup(k.kill)
	wants("at the start", ok)
	for _, tt := range []struct {
		name, change string
		hangup       bool
	}{
		{name: "links to the null device", change: "ln -sf /dev/null pair.pem && ln -sf /dev/null users.json"},
		{name: "folders", change: "rm pair.pem users.json && mkdir pair.pem users.json"},
		{name: "pipes", change: "rm pair.pem users.json && mkfifo pair.pem users.json"},
		{name: "pipes, and SIGHUP", change: "rm pair.pem users.json && mkfifo pair.pem users.json", hangup: true},
		{name: "large files", change: "truncate -s 1G pair.pem users.json"},
	} {
		shell(t, dir, tt.change)
		if tt.hangup {
			k.signal(syscall.SIGHUP)
		}
		wants(tt.name, `{"status":"ok","detail":"certificate could not be loaded again, keeping the previous version; `+
			`users could not be loaded again, keeping the previous version"}`)
		shell(t, dir, putBack)
		wants("without the "+tt.name, ok)
	}
	k.stop()
}

// TestUsersFromPipe starts the service with its users in a pipe, which it reads once.
func TestUsersFromPipe(t *testing.T) {
	dir := t.TempDir()
	users := fmt.Appendf(nil, `{"johndoe": {"hashed_password": %q}}`, hashOf(t, "secret"))
	if err := os.WriteFile(filepath.Join(dir, "users.json"), users, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		`exec "$0" -addr $1 -users /dev/stdin < <(cat users.json)`,
		`exec "$0" -addr $1 -users <(cat users.json)`,
		`mkfifo pipe; cat users.json >pipe & exec "$0" -addr $1 -users pipe`,
	} {
		addr := freeAddrs(t, 1)[0]
		k := &keeper{told: make(map[string]int), process: &process{t: t, url: "http://" + addr, name: "bash",
			args: []string{"-c", "cd " + dir + "; " + command, program, addr}, log: filepath.Join(dir, "log")}}
		k.start()
		k.healthz(ok)
		if _, status := k.login(); status != 200 {
			t.Errorf("%s: a login: %d", command, status)
		}
		k.kill()
	}
}

// certificate returns a certificate for 127.0.0.1 and its key, in PEM.
func certificate(t *testing.T, serial int64) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		NotAfter:     time.Now().Add(30 * 24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, "%s%s", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}
