package usersfile_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/crypto/bcrypt"

	"simple-oauth2/internal/usersfile"
)

// openTerminal returns both ends of a new pseudoterminal: what a person has, and
// what a program has.
func openTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudoterminals here:", err)
	}
	t.Cleanup(func() { person.Close() })
	var number, unlock uint32
	ioctl(t, person, syscall.TIOCSPTLCK, unsafe.Pointer(&unlock))
	ioctl(t, person, syscall.TIOCGPTN, unsafe.Pointer(&number))
	program, err = os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudoterminals here:", err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

func ioctl(t *testing.T, f *os.File, request uintptr, value unsafe.Pointer) {
	t.Helper()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, uintptr(value)); errno != 0 {
		t.Fatal(errno)
	}
}

func modes(t *testing.T, terminal *os.File) (modes syscall.Termios) {
	t.Helper()
	ioctl(t, terminal, syscall.TCGETS, unsafe.Pointer(&modes))
	return modes
}

// typing answers each line that the program asks for with the next of the lines.
type typing struct {
	t       *testing.T
	program *os.File
	person  *os.File
	lines   []string
	asked   []string
}

func (y *typing) Write(prompt []byte) (int, error) {
	if modes(y.t, y.program).Lflag&syscall.ECHO != 0 {
		y.t.Errorf("the terminal shows what is typed after %q", prompt)
	}
	if modes(y.t, y.program).Cc[syscall.VSUSP] != 0 {
		y.t.Errorf("Ctrl-Z stops what started the program after %q", prompt)
	}
	y.asked = append(y.asked, strings.TrimSpace(string(prompt)))
	if len(y.lines) > 0 {
		y.person.WriteString(y.lines[0])
		y.lines = y.lines[1:]
	}
	return len(prompt), nil
}

// TestHashOnTerminal types a password into a terminal, and wants it to be as it was
// afterwards, and to have shown nothing.
func TestHashOnTerminal(t *testing.T) {
	const first, again = "Type the password (it is not shown) and press Enter:", "Type it again:"
	for _, tt := range []struct {
		name  string
		typed []string
		asked []string
		err   string // "" for the hash of correct horse
	}{
		{"twice the same", []string{"correct horse\n", "correct horse\n"}, []string{first, again}, ""},
		{"with the return key", []string{"correct horse\r", "correct horse\r"}, []string{first, again}, ""},
		{"with a correction", []string{"correct hose\x7f\x7frse\n", "correct horse\n"}, []string{first, again}, ""},
		{"ahead", []string{"correct horse\ncorrect horse\n"}, []string{first, again}, ""},
		{"two passwords", []string{"correct horse\n", "correct hose\n"}, []string{first, again}, "the two passwords differ"},
		{"nothing", []string{"\n"}, []string{first}, "the password is empty"},
		{"the end of the input", []string{"\x04"}, []string{first}, "the password is empty"},
		{"the end of the input the second time", []string{"correct horse\n", "\x04"}, []string{first, again},
			"the two passwords differ"},
		{"with Ctrl-Z", []string{"correct\x1a horse\n", "correct\x1a horse\n"}, []string{first, again}, ""},
		{"pasted", []string{"\x1b[200~secret\x1b[201~\n", "\x1b[200~secret\x1b[201~\n"}, []string{first, again},
			"the password contains the marks that a terminal puts around pasted text: type it instead"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			person, program := openTerminal(t)
			before := modes(t, program)
			var stdout bytes.Buffer
			y := &typing{t: t, program: program, person: person, lines: tt.typed}
			err := usersfile.Hash([]string{"-cost", "4"}, program, &stdout, y)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || err.Error() != tt.err) {
				t.Errorf("error %v, want %s", err, tt.err)
			}
			if tt.err == "" && bcrypt.CompareHashAndPassword(bytes.TrimSpace(stdout.Bytes()), []byte("correct horse")) != nil {
				t.Errorf("%q is not the hash", &stdout)
			}
			if strings.Join(y.asked, "|") != strings.Join(tt.asked, "|") {
				t.Errorf("asked %q, want %q", y.asked, tt.asked)
			}
			if modes(t, program) != before {
				t.Error("the terminal is not as it was")
			}
			program.WriteString("end\n") // what it has shown so far stands before
			if shown, err := bufio.NewReader(person).ReadString('\n'); shown != "end\r\n" {
				t.Errorf("the terminal has shown %q, %v", shown, err)
			}
		})
	}
}
