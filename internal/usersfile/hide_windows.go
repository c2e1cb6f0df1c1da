package usersfile

import (
	"os"
	"syscall"
)

// The modes of a console's input, from consoleapi.h.
const (
	processedInput = 0x1
	lineInput      = 0x2
	echoInput      = 0x4
)

var setConsoleMode = syscall.NewLazyDLL("kernel32.dll").NewProc("SetConsoleMode")

// hideInput makes a console read lines without showing what is typed, until show
// is called. Its error means that the console is as it was.
func hideInput(terminal *os.File) (show func(), err error) {
	console := terminal.Fd()
	var was uint32
	if err := syscall.GetConsoleMode(syscall.Handle(console), &was); err != nil {
		return nil, err
	}
	if ok, _, err := setConsoleMode.Call(console, uintptr(was&^echoInput|lineInput|processedInput)); ok == 0 {
		return nil, err
	}
	return func() { setConsoleMode.Call(console, uintptr(was)) }, nil
}
