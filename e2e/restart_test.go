package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestRollingRestart restarts two replicas behind nginx, one after the other,
// while clients use them, and wants no request to fail. Nginx keeps connections
// to the replicas open, and so do half of the clients to nginx; it has no
// health checks, and so learns of a stop from a refused connection.
func TestRollingRestart(t *testing.T) {
	for _, name := range []string{"etcd", "nginx"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("no " + name + " here")
		}
	}
	dir, addrs := t.TempDir(), freeAddrs(t, 5)
	endpoint := "http://" + addrs[0]
	begin := func(name, program, url string, args ...string) *process {
		p := &process{t: t, name: program, args: args, url: url, log: filepath.Join(dir, name)}
		p.start()
		t.Cleanup(p.kill)
		return p
	}
	c := &cluster{t: t, members: []*process{begin("etcd", "etcd", endpoint, "--data-dir", filepath.Join(dir, "data"), "--log-level", "error", "--unsafe-no-fsync",
		"--listen-client-urls", endpoint, "--advertise-client-urls", endpoint, "--listen-peer-urls", "http://"+addrs[1])}}
	for i, addr := range addrs[2:4] {
		c.replicas = append(c.replicas, begin(fmt.Sprint("replica", i), program, "http://"+addr, "-addr", addr, "-etcd", endpoint, "-shutdown-delay", "1s"))
	}
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`
daemon off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
    access_log off;
    client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
    upstream replicas {
        server %[2]s max_fails=0;
        server %[3]s max_fails=0;
        keepalive 64;
    }
    server {
        listen %[4]s;
        location / {
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}`, dir, addrs[2], addrs[3], addrs[4])
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	proxy := begin("nginx", "nginx", "http://"+addrs[4], "-c", config, "-e", filepath.Join(dir, "error.log"))
	for _, p := range append(c.replicas, proxy) {
		c.eventually("healthy", func() bool { return c.healthy(p) })
	}
	token, status, _ := c.login(c.replicas[0])
	if status != 200 {
		t.Fatalf("login: %d", status)
	}

	stop := make(chan struct{})
	var clients sync.WaitGroup
	var answered, failed atomic.Int64
	for i := range 8 {
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
		clients.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				request, _ := http.NewRequest("GET", proxy.url+"/users/me", nil)
				if n%2 == 0 { // a request that nginx does not send again on its own
					request, _ = http.NewRequest("POST", proxy.url+"/revoke", strings.NewReader(url.Values{"token": {"nonsense"}}.Encode()))
					request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				}
				request.Header.Set("Authorization", "Bearer "+token)
				response, err := client.Do(request)
				if err != nil {
					failed.Add(1)
					t.Errorf("%s: %v", request.URL.Path, err)
					return
				}
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
				if response.StatusCode != 200 {
					failed.Add(1)
					t.Errorf("%s: %s", request.URL.Path, response.Status)
				}
				answered.Add(1)
			}
		})
	}
	for range 3 {
		for _, r := range c.replicas {
			before := answered.Load()
			r.signal(syscall.SIGTERM)
			c.eventually("not ready", func() bool {
				status, _, _, _ := ask(r, "/healthz", "", nil)
				return status == 503
			})
			if err := r.cmd.Wait(); err != nil {
				t.Errorf("on SIGTERM: %v", err)
			}
			r.start()
			c.eventually("healthy", func() bool { return c.healthy(r) })
			t.Logf("%d requests answered during a restart", answered.Load()-before)
		}
	}
	close(stop)
	clients.Wait()
	t.Logf("%d of %d requests failed", failed.Load(), answered.Load())
	if t.Failed() {
		log, _ := os.ReadFile(filepath.Join(dir, "error.log"))
		t.Logf("nginx:\n%s", log)
	}
}
