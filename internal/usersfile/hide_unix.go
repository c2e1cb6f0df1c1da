//go:build linux || darwin

package usersfile

import (
	"os"
	"os/signal"
	"syscall"
	"unsafe"
)

// hideInput makes a terminal read lines without showing what is typed, until show
// is called. Its error means that the terminal is as it was.
func hideInput(terminal *os.File) (show func(), err error) {
	var was syscall.Termios
	if err := ioctl(terminal, getTermios, &was); err != nil {
		return nil, err
	}
	hidden := was
	hidden.Lflag &^= syscall.ECHO
	hidden.Lflag |= syscall.ICANON | syscall.ISIG
	hidden.Iflag |= syscall.ICRNL
	signal.Ignore(syscall.SIGTSTP) // after Ctrl-Z and fg, the shell would have it shown again
	show = func() {
		ioctl(terminal, setTermios, &was)
		signal.Reset(syscall.SIGTSTP)
	}
	if err := ioctl(terminal, setTermios, &hidden); err != nil {
		show()
		return nil, err
	}
	return show, nil
}

func ioctl(terminal *os.File, request uintptr, modes *syscall.Termios) error {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, terminal.Fd(), request, uintptr(unsafe.Pointer(modes)))
	if errno != 0 {
		return errno
	}
	return nil
}
