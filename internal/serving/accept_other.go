//go:build !linux

package serving

import "net"

// acceptNoMore does nothing: here Close resets the waiting connections.
func acceptNoMore(net.Listener) {}
