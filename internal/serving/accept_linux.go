package serving

import (
	"net"
	"syscall"
)

// acceptNoMore makes the system drop the packets that open a connection, until
// the listener is closed. Connections that are half open or waiting can still be
// accepted. A client tries again after a second, and is refused then.
func acceptNoMore(listener net.Listener) {
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		syscall.AttachLsf(int(fd), []syscall.SockFilter{ // if this fails, Close resets the waiting connections
			{Code: syscall.BPF_LD | syscall.BPF_B | syscall.BPF_ABS, K: 13},                   // the flags of the TCP header
			{Code: syscall.BPF_JMP | syscall.BPF_JSET | syscall.BPF_K, K: 0x02, Jt: 0, Jf: 1}, // SYN
			{Code: syscall.BPF_RET | syscall.BPF_K, K: 0},
			{Code: syscall.BPF_RET | syscall.BPF_K, K: 1 << 18},
		})
	})
}
