package serving

import (
	"net"
	"testing"
	"time"
)

// TestAcceptNoMore opens a connection that waits to be accepted, and tries to
// open a later one.
func TestAcceptNoMore(t *testing.T) {
	listener, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	early, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	acceptNoMore(listener)
	if late, err := net.DialTimeout("tcp", listener.Addr().String(), 100*time.Millisecond); err == nil {
		late.Close()
		t.Error("a connection was opened")
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if accepted.RemoteAddr().String() != early.LocalAddr().String() {
		t.Errorf("accepted %v, not %v", accepted.RemoteAddr(), early.LocalAddr())
	}
}
