//go:build !linux

package serving

import "net"

// acceptNoMore does nothing: here the Close resets the connections that wait.
func acceptNoMore(net.Listener) {}
