package serving

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Healthcheck returns nil if GET /healthz is answered with 200 within five seconds,
// for a container without curl. Addr is the address that the service listens on:
// without a host, or with 0.0.0.0, it connects to this machine. It finds out whether the service speaks TLS, since in
// a container it does not see the service's flags.
func Healthcheck(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
		// The certificate names the host that clients use, not this address;
		// nothing secret is sent, and only the status is read.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}
	// TLS first: a plain request to a TLS service would show up in its log.
	status, err := get(ctx, transport, "https")
	if errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, new(tls.RecordHeaderError)) {
		status, err = get(ctx, transport, "http")
	}
	if err != nil {
		return fmt.Errorf("not healthy: %w", err)
	}
	if status != http.StatusOK {
		return fmt.Errorf("not healthy: %d %s", status, http.StatusText(status))
	}
	return nil
}

func get(ctx context.Context, transport *http.Transport, scheme string) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://localhost/healthz", nil)
	if err != nil {
		return 0, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	return response.StatusCode, nil
}
