package usercmd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"simple-oauth2/internal/safefile"
)

// hash is the hash of a password that no test needs.
var hash = func() string {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return string(hash)
}()

// aHash matches a hash.
var aHash = regexp.MustCompile(`\$2a\$\d\d\$[./0-9A-Za-z]{53}`)

// folder is a folder with a users file, in which HASH stands for a hash.
func folder(t testing.TB, text string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "users.json")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "HASH", hash)), 0o640); err != nil {
		t.Fatal(err)
	}
	return file
}

// run runs the command on a file. The arguments are separated by spaces.
func run(file, args, stdin string) (stdout, stderr string, err error) {
	var out, said bytes.Buffer
	err = Run(strings.Fields(args), []string{"OAUTH2_USERS=" + file}, strings.NewReader(stdin), &out, &said)
	return out.String(), strings.ReplaceAll(said.String(), file, "FILE"), err
}

// read returns the file, with HASH for each hash.
func read(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return aHash.ReplaceAllString(string(text), "HASH")
}

// only wants the folder of a file to have nothing else.
func only(t *testing.T, file string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(entries) > 1 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
}

// readme is written as the README's file is.
const readme = `{
  "jane": {
    "full_name": "Jane Roe",
    "hashed_password": "HASH",
    "scopes": ["items:read", "items:write"]
  },
  "items-service": {"hashed_password": "HASH", "scopes": ["introspect"]}
}
`

// TestDiffs changes files that are written in many ways. The clock stands at the
// beginning of 2000.
func TestDiffs(t *testing.T) {
	const now = `"2000-01-01T00:00:00.001Z"`
	for _, tt := range []struct {
		name   string
		before string
		args   string
		after  string // before, with old replaced by new, if it is empty
		old    string
		new    string
		said   string
	}{
		{name: "add to nothing", before: `{}`, args: "add zoe -cost 4", said: "added",
			after: "{\n  \"zoe\": {\n    \"hashed_password\": \"HASH\"\n  }\n}"},
		{name: "add to white space", before: " {\n\n} \n", args: "add zoe -cost 4", said: "added",
			after: " {\n  \"zoe\": {\n    \"hashed_password\": \"HASH\"\n  }\n} \n"},
		{name: "add everything", before: readme, said: "added", old: "\"introspect\"]}\n",
			new: "\"introspect\"]},\n" + `  "zoë": {
    "full_name": "Zoë<&>",
    "email": "z\"@x",
    "hashed_password": "HASH",
    "scopes": ["a", "b:c"],
    "token_ttl": "168h"
  }
`, args: `add -cost 4 -scope a zoë -full-name Zoë<&> --email z"@x -scope=b:c -token-ttl 168h`},
		{name: "add to one line", before: `{"jane": {"hashed_password": "HASH"}}`, args: "add zoe -cost 4 -scope a",
			said: "added",
			old:  `}}`, new: `}, "zoe": {"hashed_password": "HASH", "scopes": ["a"]}}`},
		{name: "add without white space", before: `{"jane":{"hashed_password":"HASH"}}`, args: "add zoe -cost 4 -scope a",
			said: "added",
			old:  `}}`, new: `},"zoe":{"hashed_password":"HASH","scopes":["a"]}}`},
		{name: "add with padding", before: `{ "jane": { "hashed_password": "HASH", "disabled": true } }`,
			args: "add zoe -cost 4",
			said: "added", old: `} }`, new: `}, "zoe": { "hashed_password": "HASH" } }`},
		{name: "add with tabs and lines of Windows",
			before: "{\r\n\t\"jane\": {\r\n\t\t\"hashed_password\": \"HASH\"\r\n\t}\r\n}\r\n", args: "add zoe -cost 4 -scope a",
			said: "added",
			old:  "\t}\r\n}",
			new:  "\t},\r\n\t\"zoe\": {\r\n\t\t\"hashed_password\": \"HASH\",\r\n\t\t\"scopes\": [\"a\"]\r\n\t}\r\n}"},
		{name: "log out", before: readme, args: "logout jane", said: "is logged out",
			old: "items:write\"]\n", new: "items:write\"],\n    \"not_before\": " + now + "\n"},
		{name: "log out on one line", before: readme, args: "logout items-service", said: "is logged out",
			old: `ect"]}`, new: `ect"], "not_before": ` + now + `}`},
		{name: "log out again", before: `{"jane": {"not_before" : "1999-12-31T23:59:59Z" , "hashed_password": "HASH"}}`,
			args: "logout jane", said: "is logged out", old: `"1999-12-31T23:59:59Z"`, new: now},
		{name: "log out after the clock went back",
			before: `{"jane": {"hashed_password": "HASH", "not_before": "2026-01-01T01:00:00.0005+01:00"}}`, args: "logout jane",
			said: "is logged out", old: `2026-01-01T01:00:00.0005+01:00`, new: `2026-01-01T00:00:00.002Z`},
		{name: "log out in the same moment",
			before: `{"jane": {"hashed_password": "HASH", "not_before": ` + now + `}}`, args: "logout jane",
			said: "is logged out", old: `00.001Z`, new: `00.003Z`},
		{name: "log out a name with an escape", before: `{"j\u0061ne": {"hashed_password": "HASH"}}`, args: "logout jane",
			said: "is logged out", old: `}}`, new: `, "not_before": ` + now + `}}`},
		{name: "log everybody out", before: `{"a": {"hashed_password": "HASH"}, "b": {"hashed_password": "HASH"}}`,
			args: "logout -all", said: "FILE: everybody is logged out\n", old: `H"}`, new: `H", "not_before": ` + now + `}`},
		{name: "disable", before: readme, args: "disable jane", said: "is disabled",
			old: "items:write\"]\n", new: "items:write\"],\n    \"disabled\": true\n"},
		{name: "disable who was enabled", before: `{"jane": {"hashed_password": "HASH", "disabled":false }}`,
			args: "disable jane",
			said: "is disabled", old: `false`, new: `true`},
		{name: "disable twice", before: `{"jane": {"hashed_password": "HASH", "disabled":true }}`, args: "disable jane",
			said: "is disabled already"},
		{name: "enable", before: `{"jane": {"disabled":  true, "hashed_password": "HASH"}}`, args: "enable jane",
			said: "is enabled", old: `true`, new: `false`},
		{name: "enable who is not disabled", before: readme, args: "enable jane", said: "is enabled already"},
		{name: "change a password", before: readme, args: "passwd jane -cost 5",
			said: "has a new password, and is logged out",
			old:  "items:write\"]\n", new: "items:write\"],\n    \"not_before\": " + now + "\n"},
		{name: "remove the first", before: readme, args: "remove jane", said: "removed",
			after: "{\n  \"items-service\": {\"hashed_password\": \"HASH\", \"scopes\": [\"introspect\"]}\n}\n"},
		{name: "remove the last", before: readme, args: "remove items-service", said: "removed",
			old: ",\n  \"items-service\": {\"hashed_password\": \"HASH\", \"scopes\": [\"introspect\"]}"},
		{name: "remove one in the middle",
			before: "{\"a\":{\"hashed_password\":\"HASH\"} ,\n \"b\":{\"hashed_password\":\"HASH\"}\n," +
				"\"c\":{\"hashed_password\":\"HASH\"}}",
			args: "remove b", said: "removed", old: " ,\n \"b\":{\"hashed_password\":\"HASH\"}"},
		{name: "remove the only one", before: "{\n  \"jane\": {\"hashed_password\": \"HASH\"}\n}\n", args: "remove jane",
			said: "removed", after: "{\n}\n"},
		{name: "a name that begins with a dash", before: `{"-jane": {"hashed_password": "HASH"}}`, args: "disable -- -jane",
			said: "is disabled", old: `}}`, new: `, "disabled": true}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := folder(t, tt.before)
			synctest.Test(t, func(t *testing.T) {
				_, said, err := run(file, tt.args, "correct horse\n")
				if err != nil || !strings.HasSuffix(strings.TrimSuffix(said, "\n"), strings.TrimSuffix(tt.said, "\n")) {
					t.Errorf("%v, said %q", err, said)
				}
			})
			want := tt.after
			if want == "" {
				want = strings.ReplaceAll(tt.before, tt.old, tt.new)
			}
			if tt.old == "" && tt.after == "" {
				want = tt.before
			}
			if got := read(t, file); got != want {
				t.Errorf("before:\n%s\nafter:\n%s\nwant:\n%s", tt.before, got, want)
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 && runtime.GOOS != "windows" {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			only(t, file)
		})
	}
}

// TestRefused checks that the error is in words, and nothing is written.
func TestRefused(t *testing.T) {
	const verbs = "add, passwd, disable, enable, remove, logout, list or check"
	for _, tt := range []struct {
		name, args string
		stdin      string
		before     string // readme if it is empty
		err        string
	}{
		{name: "no command", err: "user needs a command: " + verbs},
		{name: "another command", args: "delete jane", err: `user has no command "delete" (user -h lists them)`},
		{name: "no name", args: "add", err: "user add needs the name of a user"},
		{name: "a password as an argument", args: "add zoe hunter2",
			err: "user add takes one name; a password is asked for, or read from standard input"},
		{name: "a name for list", args: "list jane", err: "user list takes no name"},
		{name: "a name and all", args: "logout jane -all", err: "user logout takes a name or -all, not both"},
		{name: "another flag", args: "remove jane -all", err: "unknown flag -all (-h lists the flags)"},
		{name: "a flag misspelt", args: "add zoe -scopes a",
			err: "unknown flag -scopes, did you mean -scope? (-h lists the flags)"},
		{name: "no file's name", args: "disable jane -users=", err: "-users is empty: give it a value, or leave it out"},
		{name: "known already", args: "add jane", err: `FILE has a user "jane" already; user passwd changes the password`},
		{name: "unknown", args: "passwd zoe", err: `FILE has no user "zoe"`},
		{name: "in other letters", args: "logout Jane", err: `FILE has no user "Jane"`},
		{name: "a name that nobody can type", args: "add zoe\u200b",
			err: `FILE: user "zoe\u200b": the username contains a character that cannot be seen`},
		{name: "a hash for a name", args: "add " + hash,
			err: `FILE: user "…" (not shown, it may be a hash): the username is a hash`},
		{name: "not UTF-8", args: "add zo\xeb", err: "an argument is not UTF-8: set the encoding of the shell"},
		{name: "no scope", args: "add zoe -scope ü",
			err: `FILE: user "zoe": entry 1 of scopes is not a scope: one is printable ASCII without spaces, " and \`},
		{name: "a lifetime in days", args: "add zoe -token-ttl 7d",
			err: "-token-ttl 7d: must be a duration such as 30m or 8h, in whole seconds, from 1s to 87600h (ten years)"},
		{name: "a cost too high", args: "passwd jane -cost 17", err: "-cost 17: it must be from 4 to 16"},
		{name: "no password", args: "add zoe", err: `FILE: user "zoe": nothing came on standard input (docker run needs -i)`},
		{name: "two lines", args: "passwd jane", stdin: "a\nb\n",
			err: `FILE: user "jane": the password has more than one line`},
		{name: "a long password", args: "passwd jane -cost 4", stdin: strings.Repeat("x", 73),
			err: `FILE: user "jane": bcrypt: password length exceeds 72 bytes`},
		{name: "another user is broken", args: "disable jane", before: `{"jane": {"hashed_password": "HASH"}, "zoe": {}}`,
			err: `FILE: user "zoe": no hashed_password`},
		{name: "not JSON", args: "add zoe", before: `{`, err: "FILE: not JSON: unexpected end"},
		{name: "a byte order mark", args: "add zoe", before: "\ufeff{}",
			err: "FILE: not JSON: it begins with a byte order mark, save it as UTF-8 without one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.before == "" {
				tt.before = readme
			}
			file := folder(t, tt.before)
			out, said, err := run(file, tt.args, tt.stdin)
			if err == nil || strings.ReplaceAll(err.Error(), file, "FILE") != tt.err || out+said != "" {
				t.Errorf("error %v, want %s; said %q", err, tt.err, out+said)
			}
			if text := read(t, file); text != tt.before {
				t.Errorf("the file has changed:\n%s", text)
			}
			only(t, file)
		})
	}
}

// TestWhatIsNoFile names what cannot be replaced.
func TestWhatIsNoFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows says it in other words")
	}
	const link = " is a link: change the file that it leads to, or in Kubernetes the Secret"
	dir := filepath.Dir(folder(t, readme))
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Symlink("users.json", in("link")), os.Symlink("nowhere", in("dangling")),
		os.Mkdir(in("folder"), 0o700)); err != nil {
		t.Fatal(err)
	}
	none := "there is no file " + in("none") + ": name another with -users or OAUTH2_USERS, or make it with user add"
	for _, tt := range []struct{ name, file, args, err string }{
		{name: "a link", file: in("link"), args: "disable jane", err: in("link") + link},
		{name: "a link, before a password is asked for", file: in("link"), args: "passwd jane", err: in("link") + link},
		{name: "a dangling link", file: in("dangling"), args: "add jane", err: in("dangling") + link},
		{name: "a folder", file: in("folder"), args: "add jane", err: in("folder") + " is not a regular file"},
		{name: "nothing to change", file: in("none"), args: "disable jane", err: none},
		{name: "nothing to list", file: in("none"), args: "list", err: none},
		{name: "nothing to check", file: in("none"), args: "check", err: none},
		{name: "no folder", file: in("no/users.json"), args: "logout -all",
			err: in("no/users.json") + ": there is no such folder"},
		{name: "no folder, and a generated password", file: in("no/users.json"), args: "add jane -generate",
			err: in("no/users.json") + ": there is no such folder"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, said, err := run(tt.file, tt.args, "")
			if err == nil || err.Error() != tt.err || out+said != "" {
				t.Errorf("error %v, want %s; said %q", err, tt.err, out+said)
			}
		})
	}
	for _, args := range []string{"list", "check"} { // which only read
		if out, _, err := run(in("link"), args, ""); err != nil || !strings.Contains(out, "jane") {
			t.Errorf("%s of a link: %q, %v", args, out, err)
		}
	}
}

// TestPasswords adds users with passwords that are typed and made up.
func TestPasswords(t *testing.T) {
	for _, tt := range []struct {
		name, before, args, stdin string
		password                  string // "" for what is printed
		cost                      int
	}{
		{name: "of a new file", args: "add zoe", stdin: "correct horse\n", password: "correct horse", cost: 12},
		{name: "with a cost", args: "add zoe -cost 4", stdin: "correct horse\r\n", password: "correct horse", cost: 4},
		{name: "made up", before: readme, args: "add zoe -generate -cost 4", cost: 4},
		{name: "of a file of another cost",
			before: `{"a": {"hashed_password": "` + strings.Replace(hash, "$04$", "$11$", 1) + `"}}`,
			args:   "add zoe -generate", cost: 11},
		{name: "of a file of weak hashes", before: `{"zoe": {"hashed_password": "HASH"}}`, args: "passwd zoe -generate",
			cost: 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := folder(t, tt.before)
			if tt.before == "" {
				os.Remove(file)
			}
			out, said, err := run(file, tt.args, tt.stdin)
			password := tt.password
			if password == "" {
				password = strings.TrimSuffix(out, "\n")
			} else if out != "" {
				t.Errorf("printed %q", out)
			}
			if err != nil || len(password) < 12 || strings.Contains(said, password) {
				t.Fatalf("password %q, said %q, %v", password, said, err)
			}
			text, _ := os.ReadFile(file)
			now, err := parse(text)
			if err != nil {
				t.Fatal(err)
			}
			zoe := now.byName["zoe"]
			if zoe.Cost != tt.cost {
				t.Errorf("cost %d, want %d", zoe.Cost, tt.cost)
			}
			if tt.cost == 4 && bcrypt.CompareHashAndPassword(zoe.Hash, []byte(password)) != nil {
				t.Error("it is not the password's hash")
			}
			if info, err := os.Stat(file); tt.before == "" && info.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
}

// TestWarnsOfNamesAlike adds a user whose name is like another one's.
func TestWarnsOfNamesAlike(t *testing.T) {
	_, said, err := run(folder(t, readme), "add Jane -generate -cost 4", "")
	want := "FILE: \"Jane\" added\nFILE: warning: users \"jane\" and \"Jane\" differ only in upper and lower case\n"
	if err != nil || said != want {
		t.Errorf("%v, said %q, want %q", err, said, want)
	}
}

// TestOwner keeps the owner and the mode of a file.
func TestOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give a file away")
	}
	file := folder(t, readme)
	if err := errors.Join(os.Chown(file, 65532, 65533), os.Chmod(file, 0o604)); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(file)
	if _, _, err := run(file, "logout jane", ""); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(file)
	owner := func(info fs.FileInfo) string { // of a Stat_t, which not all systems have
		stat := reflect.Indirect(reflect.ValueOf(info.Sys()))
		return fmt.Sprint(stat.FieldByName("Uid"), ":", stat.FieldByName("Gid"))
	}
	if err != nil || os.SameFile(before, after) || owner(after) != "65532:65533" || after.Mode() != before.Mode() {
		t.Errorf("%v, %s %v; the same file: %v", err, owner(after), after.Mode(), os.SameFile(before, after))
	}
}

// TestTwoAtOnce lets many commands write at the same time.
func TestTwoAtOnce(t *testing.T) {
	file := folder(t, readme)
	var all sync.WaitGroup
	want := []string{"jane", "items-service"}
	for i := range 20 {
		name := fmt.Sprint("user", i)
		want = append(want, name)
		all.Go(func() {
			if _, _, err := run(file, "add -generate -cost 4 "+name, ""); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	now, err := (&command{file: file}).read()
	if err != nil {
		t.Fatal(err)
	}
	if slices.Sort(want); !slices.Equal(slices.Sorted(maps.Keys(now.byName)), want) {
		t.Errorf("users %q", now.names)
	}
	only(t, file)
}

// TestEditedMeanwhile saves the file from an editor while a command works on it. What the
// editor wrote stays, and the command says so.
func TestEditedMeanwhile(t *testing.T) {
	for _, tt := range []struct{ name, before string }{
		{name: "a file", before: readme},
		{name: "a new file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "users.json")
			if tt.before != "" {
				file = folder(t, tt.before)
			}
			const edited = "{\"zoe\": {\"hashed_password\": \"by hand\"}}\n"
			c := &command{verb: "add", file: file}
			err := c.change(func(now *users) ([]byte, error) {
				return slices.Concat(now.text, []byte("\n")), os.WriteFile(file, []byte(edited), 0o600)
			})
			text, _ := os.ReadFile(file)
			if err == nil || !strings.Contains(err.Error(), "changed by something else") || string(text) != edited {
				t.Errorf("error %v, and the file is %q", err, text)
			}
			only(t, file)
		})
	}
}

// TestLocked waits for a command that does not end, in simulated time, and goes on
// after one that was killed.
func TestLocked(t *testing.T) {
	file := folder(t, readme)
	lock, err := safefile.Lock(file + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, _, err := run(file, "disable jane", "")
		if want := file + ": another command has been changing it for 10s"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if took := time.Since(began); took < patience || took > patience+time.Second {
			t.Errorf("after %v", took)
		}
		time.AfterFunc(time.Second, func() { lock.Close() }) // as when it is killed
		if _, _, err := run(file, "disable jane", ""); err != nil {
			t.Error(err)
		}
	})
	os.WriteFile(file+".new", []byte("half a fi"), 0o600)
	if _, _, err := run(file, "enable jane", ""); err != nil || !strings.Contains(read(t, file), `"disabled": false`) {
		t.Errorf("%v\n%s", err, read(t, file))
	}
	only(t, file)
}

// TestList prints a table.
func TestList(t *testing.T) {
	file := folder(t, `{
	"jane": {"hashed_password": "HASH", "scopes": ["a", "b"], "token_ttl": "1h10m"},
	"items service": {"hashed_password": "HASH", "disabled": true, "token_ttl": "168h",
		"not_before": "2026-01-31T10:00:00.5+01:00"},
	"bob": {"hashed_password": "HASH", "disabled": false, "token_ttl": "90s"}
}`)
	const want = `NAME           DISABLED  SCOPES  COST  LIFETIME  OUT SINCE
jane           -         a b     4     1h10m     -
items service  yes       -       4     168h      2026-01-31T09:00:00Z
bob            -         -       4     1m30s     -
`
	if out, said, err := run(file, "list", ""); out != want || said != "" || err != nil {
		t.Errorf("%v\n%s\nwant\n%s", err, out, want)
	}
}

// TestCheck checks files that are good, that could be better, and that the service
// would refuse.
func TestCheck(t *testing.T) {
	strong := strings.Replace(hash, "$04$", "$12$", 1)
	const weak = `FILE: warning: user "jane": a hash of cost 4 is cracked too fast; user passwd makes a new one` + "\n"
	for _, tt := range []struct {
		name, text string
		mode       fs.FileMode // 0640 if it is 0
		out, err   string
	}{
		{name: "good", text: `{"jane": {"hashed_password": "` + strong + `"}}`,
			out: "FILE: the service can load it; users: 1, warnings: 0\n"},
		{name: "nobody", text: `{}`,
			out: "FILE: warning: there are no users: nobody can log in\nFILE: the service can load it; users: 0, warnings: 1\n"},
		{name: "weak", text: `{"jane": {"hashed_password": "HASH"}}`,
			out: weak + "FILE: the service can load it; users: 1, warnings: 1\n"},
		{name: "mixed", text: `{"jane": {"hashed_password": "HASH"}, "bob": {"hashed_password": "` + strong + `"}}`,
			out: weak +
				"FILE: warning: the hashes have costs from 4 to 12: the time of an answer tells who has a cheap one\n" +
				"FILE: the service can load it; users: 2, warnings: 2\n"},
		{name: "alike", text: `{"Zoë": {"hashed_password": "` + strong + `"}, "zoË": {"hashed_password": "` + strong + `"}}`,
			out: `FILE: warning: users "Zoë" and "zoË" differ only in upper and lower case` + "\n" +
				"FILE: the service can load it; users: 2, warnings: 1\n"},
		{name: "the future", text: `{"jane": {"hashed_password": "` + strong + `", "not_before": "9999-01-01T00:00:00Z"}}`,
			out: `FILE: warning: user "jane": not_before is in the future` + "\n" +
				"FILE: the service can load it; users: 1, warnings: 1\n"},
		{name: "everybody may read it", text: `{"jane": {"hashed_password": "` + strong + `"}}`, mode: 0o644,
			out: "FILE: warning: everybody on this machine may read the file (mode 0644), and crack the hashes\n" +
				"FILE: the service can load it; users: 1, warnings: 1\n"},
		{name: "two faults",
			text: "{\n\"jane\": {},\n\"bob\": {\"hashed_password\": \"HASH\"},\n\n\"zoe\": {\"admin\": true}}",
			out:  "FILE, line 2: user \"jane\": no hashed_password\nFILE, line 5: user \"zoe\": unknown field \"admin\"\n",
			err:  "FILE: the service would refuse it"},
		{name: "a name twice", text: `{"jane": {"hashed_password": "HASH"}, "jane": {"hashed_password": "HASH"}}`,
			err: `FILE: "jane" appears twice`},
		{name: "not JSON", text: "{\n\"jane\": {,",
			err: `FILE: not JSON, line 2: invalid character ',' looking for beginning of object key string`},
		{name: "a list", text: "[1]", err: "FILE: not a JSON object"},
		{name: "empty", text: "", err: "FILE: not JSON: unexpected end"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := folder(t, tt.text)
			if tt.mode != 0 {
				if runtime.GOOS == "windows" {
					t.Skip("Windows has no such modes")
				}
				if err := os.Chmod(file, tt.mode); err != nil {
					t.Fatal(err)
				}
			}
			out, _, err := run(file, "check", "")
			got := ""
			if err != nil {
				got = strings.ReplaceAll(err.Error(), file, "FILE")
			}
			if out = strings.ReplaceAll(out, file, "FILE"); out != tt.out || got != tt.err {
				t.Errorf("%s\nerror %s\nwant\n%s\nerror %s", out, got, tt.out, tt.err)
			}
		})
	}
}

// TestWhichFile finds the file.
func TestWhichFile(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"users.json", "env.json", "flag.json"} {
		if err := os.WriteFile(name, []byte(`{"of `+name+`": {"hashed_password": "`+hash+`"}}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ name, args, environ, want, err string }{
		{name: "neither", args: "list", want: "of users.json"},
		{name: "the variable", args: "list", environ: "OAUTH2_USERS=env.json", want: "of env.json"},
		{name: "the flag", args: "list -users flag.json", environ: "OAUTH2_USERS=env.json", want: "of flag.json"},
		{name: "the default as a flag", args: "list -users users.json", environ: "OAUTH2_USERS=env.json",
			want: "of users.json"},
		{name: "an empty variable", args: "list", environ: "OAUTH2_USERS=",
			err: "OAUTH2_USERS is empty: give it a value, or leave it out"},
		{name: "other settings of the service", args: "list", environ: "OAUTH2_TOKEN_TTL=never", want: "of users.json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			err := Run(strings.Fields(tt.args), []string{"PATH=x", tt.environ}, strings.NewReader(""), &out, &bytes.Buffer{})
			if err == nil {
				err = errors.New("")
			}
			if err.Error() != tt.err || !strings.Contains(out.String(), tt.want) {
				t.Errorf("%v, %s; want %s", err, &out, tt.want)
			}
		})
	}
}

// FuzzEdit changes any file that the service can load. The other users must stay, and
// the file must load again.
func FuzzEdit(f *testing.F) {
	for _, seed := range []string{readme, `{}`, ` { } `, `{"a":{"hashed_password":"HASH"}}`,
		"{\"a\":{\"hashed_password\":\"HASH\"\n,\"scopes\":[]}\n}",
		`{"\u0061" : {"email":"}\"{", "hashed_password":"HASH"} ,"b":{"hashed_password":"HASH"}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		before, err := parse([]byte(strings.ReplaceAll(text, "HASH", hash)))
		if err != nil {
			return
		}
		others := func(text []byte, name string) *users {
			after, err := parse(text)
			if err != nil {
				t.Fatalf("%v in %q, from %q", err, text, before.text)
			}
			for _, other := range before.names {
				if other != name && !reflect.DeepEqual(after.byName[other], before.byName[other]) {
					t.Errorf("%q has changed in %q, from %q", other, text, before.text)
				}
			}
			return after
		}
		if _, known := before.byName["new"]; !known {
			fields := []field{{"hashed_password", encode(hash)}, {"disabled", []byte("true")}}
			after := others(add(before.text, "new", fields), "")
			if after.names[len(after.names)-1] != "new" || string(after.byName["new"].Hash) != hash {
				t.Errorf("added to %q: %q", before.text, after.text)
			}
		}
		for _, name := range before.names {
			after := others(change(before.text, name, field{"full_name", []byte(`"}{\""`)}), name)
			if record := after.byName[name]; record.FullName == nil || *record.FullName != `}{"` {
				t.Errorf("changed in %q: %q", before.text, after.text)
			}
			if after := others(remove(before.text, name), name); len(after.names) != len(before.names)-1 {
				t.Errorf("removed from %q: %q", before.text, after.text)
			}
		}
	})
}
