// Package healthcheck asks a service whether it is healthy, for a container
// that holds no curl.
package healthcheck

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Ask returns nil if GET /healthz is answered with 200 within five seconds. It
// connects to addr as it is listened on: without a host, or with 0.0.0.0, it is
// this machine's. With secure it speaks TLS.
func Ask(ctx context.Context, addr string, secure bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
		// The certificate names the host that clients ask for, not this
		// address; nothing secret is sent, and nothing but the status is read.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}
	url := "http://localhost/healthz"
	if secure {
		url = "https://localhost/healthz"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("not healthy: %w", err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not healthy: %s", response.Status)
	}
	return nil
}
