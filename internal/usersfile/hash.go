package usersfile

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// Hash is the command simple-oauth2 hash: it reads a password, with or without a
// newline at the end, and prints its hash for a users file. From a terminal it
// reads one line, after a prompt on stderr.
func Hash(args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("hash", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	cost := flags.Int("cost", 12, "")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		_, err = fmt.Fprintln(stdout, "usage: simple-oauth2 hash [-cost N] <password.txt")
		return err
	} else if err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errors.New("unexpected argument: the password is read from standard input")
	}
	if *cost < bcrypt.MinCost || *cost > MaxCost {
		return fmt.Errorf("-cost %d: it must be from %d to %d", *cost, bcrypt.MinCost, MaxCost)
	}
	if isTerminal(stdin) {
		fmt.Fprintln(stderr, "Type the password (it will be visible) and press Enter:")
		line, err := bufio.NewReader(stdin).ReadString('\n')
		if err != nil && err != io.EOF {
			return err
		}
		stdin = strings.NewReader(line)
	}
	text, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	switch {
	case password == "":
		return errors.New("the password is empty")
	case strings.ContainsAny(password, "\r\n"):
		return errors.New("the password has more than one line")
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), *cost)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s\n", hash)
	return err
}

func isTerminal(stdin io.Reader) bool {
	file, ok := stdin.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	null, _ := os.Stat(os.DevNull) // also a device
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && !os.SameFile(info, null)
}
