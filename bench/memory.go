package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// memory posts logins of 64 KiB to the service over 4,000 connections from one
// address, and says for each way to make them long how much memory the service
// took at most. Meanwhile somebody at another address logs in once a second.
func (b *bench) memory() error {
	const connections, size = 4000, 64 << 10
	form := "username=johndoe&password=wrong"
	long := form + "&x=" + strings.Repeat("x", size-len(form)-3)
	var many strings.Builder
	for i := 0; many.Len() < size-len(form)-10; i++ {
		fmt.Fprintf(&many, "&%x=", i)
	}
	head := "POST /token HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
	sized := func(form string) string { return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(form), form) }
	fmt.Printf("\n| %d connections post logins of 64 KiB | most memory, MB | answers | an honest login meanwhile, ms | failed |\n| --- | --- | --- | --- | --- |\n", connections)
	for _, kind := range []struct {
		name, request string
		slow          int // bytes at the end that are sent one a second
	}{
		{"with a long field that nobody asks for", sized(long), 0},
		{"with a long password", sized(form + strings.Repeat("x", size-len(form))), 0},
		{"with a username of 8,000 bytes, and a long field", sized("username=" + strings.Repeat("j", 8000) + "&password=wrong&x=" + strings.Repeat("x", size-8026)), 0},
		{"with thousands of short fields", sized(form + many.String()), 0},
		{"in chunks", fmt.Sprintf("%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head, len(long), long), 0},
		{"of which the last bytes come one a second", sized(long), 60},
		{"of which all but 4 KiB come one a second", sized(long), size - 4<<10},
		{"with 15 KiB of headers instead", head + "X: " + strings.Repeat("x", 15<<10) + "\r\nContent-Length: " + strconv.Itoa(len(form)) + "\r\n\r\n" + form, 0},
	} {
		var memory, answered, honest, refused figures
		round := func(_ *row, _ string, rss func() float64) error {
			var answers, failed atomic.Int64
			var took []float64
			var most float64
			stop := make(chan struct{})
			var clients sync.WaitGroup
			for range connections {
				clients.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						post(kind.request, kind.slow, stop, &answers)
					}
				})
			}
			clients.Go(func() { took = honestly(stop, &failed) })
			for end := time.Now().Add(time.Duration(b.seconds) * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				most = max(most, rss())
			}
			close(stop)
			clients.Wait()
			memory, answered = append(memory, most), append(answered, float64(answers.Load()))
			honest, refused = append(honest, median(took)), append(refused, float64(failed.Load()))
			return nil
		}
		for range b.rounds {
			if _, err := measure(b.peers[0], b.dir, bcrypt.DefaultCost, round); err != nil {
				return err
			}
		}
		fmt.Printf("| %s | %s | %s | %s | %s |\n", kind.name, memory.in("%.0f"), answered.in("%.0f"), honest.in("%.0f"), refused.in("%.0f"))
	}
	return nil
}

// post sends a request over one connection, again and again until it is closed.
func post(request string, slow int, stop chan struct{}, answers *atomic.Int64) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		time.Sleep(100 * time.Millisecond)
		return
	}
	defer conn.Close()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-stop:
			conn.Close()
		case <-ended:
		}
	}()
	reader := bufio.NewReader(conn)
	for {
		at := len(request) - slow
		if _, err := io.WriteString(conn, request[:at]); err != nil {
			return
		}
		for ; at < len(request); at++ {
			time.Sleep(time.Second)
			if _, err := io.WriteString(conn, request[at:at+1]); err != nil {
				return
			}
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return
		}
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		answers.Add(1)
		if err != nil || response.Close {
			return
		}
	}
}

// honestly logs in once a second from an address of its own, until stop, and
// returns how long each login took, in milliseconds.
func honestly(stop chan struct{}, failed *atomic.Int64) (took []float64) {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext}}
	for {
		select {
		case <-stop:
			return took
		case <-time.After(time.Second):
		}
		began := time.Now()
		if _, status, err := login(client, addr, "secret"); err != nil || status != http.StatusOK {
			failed.Add(1)
		}
		took = append(took, float64(time.Since(began).Microseconds())/1000)
	}
}
