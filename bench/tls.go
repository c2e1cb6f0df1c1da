package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// handshakes speaks plain HTTP to a service that expects TLS, over one connection
// after the other, and counts the lines of its log.
func (b *bench) handshakes() error {
	cert, key, err := b.certificate()
	if err != nil {
		return err
	}
	var failed, lines figures
	for range b.rounds {
		var log bytes.Buffer
		service := exec.Command(filepath.Join(b.dir, "simple-oauth2"), "-addr", addr, "-tls-cert", cert, "-tls-key", key)
		service.Stderr = &log
		if err := service.Start(); err != nil {
			return err
		}
		for {
			if conn, err := net.Dial("tcp", addr); err == nil {
				conn.Close()
				break
			}
			time.Sleep(time.Millisecond)
		}
		var n atomic.Int64
		var clients sync.WaitGroup
		for end := time.Now().Add(time.Duration(b.seconds) * time.Second); time.Now().Before(end); {
			for range 64 {
				clients.Go(func() {
					if conn, err := net.Dial("tcp", addr); err == nil {
						io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
						io.Copy(io.Discard, conn)
						conn.Close()
						n.Add(1)
					}
				})
			}
			clients.Wait()
		}
		service.Process.Signal(syscall.SIGTERM)
		service.Wait()
		failed, lines = append(failed, float64(n.Load())), append(lines, float64(bytes.Count(log.Bytes(), []byte("\n"))))
	}
	fmt.Printf("\nhandshakes that failed in %d s: %s; lines of the log, with those of start and stop: %s\n",
		b.seconds, failed.in("%.0f"), lines.in("%.0f"))
	return nil
}

func (b *bench) certificate() (cert, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(30 * 24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return "", "", err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	cert, key = filepath.Join(b.dir, "cert.pem"), filepath.Join(b.dir, "key.pem")
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public}), 0o600); err != nil {
		return "", "", err
	}
	return cert, key, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)
}
