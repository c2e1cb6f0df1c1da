package usersfile

import (
	"bufio"
	"cmp"

	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"

	"simple-oauth2/internal/envflag"
)

// DefaultCost is the cost of a hash if nobody asks for another.
const DefaultCost = 12

// CheckCost returns an error for a -cost that no hash in a users file may have.
func CheckCost(cost int) error {
	if cost < bcrypt.MinCost || cost > MaxCost {
		return fmt.Errorf("-cost %d: it must be from %d to %d", cost, bcrypt.MinCost, MaxCost)
	}
	return nil
}

// Hash is the command simple-oauth2 hash: it reads a password, as ReadPassword does, and
// prints its hash for a users file.
func Hash(args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("hash", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	cost := flags.Int("cost", DefaultCost, "")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		_, err = fmt.Fprintln(stdout, "usage: simple-oauth2 hash [-cost N] <password.txt")
		return err
	} else if err != nil {
		return envflag.Explain(flags, err)
	}
	if flags.NArg() > 0 {
		return errors.New("unexpected argument: the password is read from standard input")
	}
	if err := CheckCost(*cost); err != nil {
		return err
	}
	password, err := ReadPassword(stdin, stderr)
	if err != nil {
		return err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), *cost)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s\n", hash)
	return err
}

// ReadPassword reads a password, with or without a newline at the end. On a terminal it
// asks on stderr, twice, and does not show what is typed.
//
// A text that nobody types at a login is refused: one that is not UTF-8, or that
// has control characters. A byte order mark at the beginning does not count. White
// space at either end counts, as at a login; a warning on stderr says so.
func ReadPassword(stdin io.Reader, stderr io.Writer) (string, error) {
	password, err := readPassword(stdin, stderr)
	if err == nil {
		err = checkPassword(password)
	}
	if err != nil {
		return "", err
	}
	if strings.TrimSpace(password) != password {
		fmt.Fprintln(stderr, "simple-oauth2: the password begins or ends with white space, which counts")
	}
	if strings.ContainsFunc(password, isUnseen) {
		fmt.Fprintln(stderr, "simple-oauth2: the password has characters that cannot be seen, which count")
	}
	return password, nil
}

func readPassword(stdin io.Reader, stderr io.Writer) (string, error) {
	if file, ok := stdin.(*os.File); ok && isTerminal(file) {
		return ask(file, stderr)
	}
	text, err := io.ReadAll(stdin)
	if err == nil && len(text) == 0 {
		err = errors.New("nothing came on standard input (docker run needs -i)")
	}
	return withoutNewline(strings.TrimPrefix(string(text), "\ufeff")), err
}

func withoutNewline(line string) string {
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
}

func isTerminal(file *os.File) bool {
	info, err := file.Stat()
	null, _ := os.Stat(os.DevNull) // also a device
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && !os.SameFile(info, null)
}

const ctrlZ = "\x1a"

// ask reads a password from a terminal. Whatever ends it, the terminal shows again
// what is typed. Ctrl-Z does nothing.
func ask(terminal *os.File, stderr io.Writer) (string, error) {
	lines := bufio.NewReader(terminal)
	readLine := func() (string, error) {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			err = nil
		}
		return withoutNewline(strings.ReplaceAll(line, ctrlZ, "")), err
	}
	interrupted := make(chan os.Signal, 1) // before the input is hidden, so that no signal leaves it so
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer close(interrupted)
	defer signal.Stop(interrupted)
	show, hideErr := hideInput(terminal)
	if hideErr != nil {
		show = func() {}
	}
	defer show()
	go func() {
		if end, ok := <-interrupted; ok {
			show()
			os.Exit(128 + int(end.(syscall.Signal))) // as shells say that a signal ended it
		}
	}()
	if hideErr != nil {
		fmt.Fprintln(stderr, "Type the password (it will be visible) and press Enter:")
		return readLine()
	}
	fmt.Fprintln(stderr, "Type the password (it is not shown) and press Enter:")
	password, err := readLine()
	if err != nil || password == "" {
		return password, err
	}
	fmt.Fprintln(stderr, "Type it again:")
	if again, err := readLine(); err != nil || again != password {
		return "", cmp.Or(err, errors.New("the two passwords differ"))
	}
	return password, nil
}

// checkPassword refuses what nobody types at a login.
func checkPassword(password string) error {
	switch {
	case password == "":
		return errors.New("the password is empty")
	case strings.Contains(password, "\x00"):
		return errors.New("the password contains NUL bytes: it must be UTF-8, and not UTF-16")
	case strings.ContainsAny(password, "\r\n"):
		return errors.New("the password has more than one line")
	case !utf8.ValidString(password) || strings.ContainsRune(password, utf8.RuneError):
		return errors.New("the password is not UTF-8: set the encoding of the shell or the file, or type it on a terminal")
	case strings.Contains(password, "\x1b[200~"):
		return errors.New("the password contains the marks that a terminal puts around pasted text: type it instead")
	case strings.ContainsFunc(password, unicode.IsControl):
		return errors.New("the password contains a control character")
	}
	return nil
}

// isUnseen says whether a character leaves no mark: a format character, or a
// separator of lines or paragraphs.
func isUnseen(r rune) bool { return r > '~' && unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) }
