//go:build linux || darwin

package usersfile

import (
	"os"
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
	// Ctrl-Z would also stop what started the program, such as go run or a script: a
	// shell would then read from a terminal that shows nothing. Here it is a character.
	for _, key := range stopKeys {
		hidden.Cc[key] = noKey
	}
	if err := ioctl(terminal, setTermios, &hidden); err != nil {
		return nil, err
	}
	return func() { ioctl(terminal, setTermios, &was) }, nil
}

func ioctl(terminal *os.File, request uintptr, modes *syscall.Termios) error {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, terminal.Fd(), request, uintptr(unsafe.Pointer(modes)))
	if errno != 0 {
		return errno
	}
	return nil
}
