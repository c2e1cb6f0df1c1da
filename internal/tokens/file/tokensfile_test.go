package file

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"simple-oauth2/internal/tokens"
	"simple-oauth2/internal/tokens/conformance"
)

// lines is a log that can be read while it is being written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// folder returns a folder for a test, in memory if possible: thousands of tests
// would have to wait for a disk.
func folder(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "tokensfile")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// open opens a store without running it, and closes it when the test ends.
func open(t testing.TB, name string) (*Store, *lines) {
	t.Helper()
	log := &lines{}
	s, err := Open(Config{name}, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s, log
}

// reopen opens the file again, as another process would after the first has
// ended.
func reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	s.close()
	s, _ = open(t, s.name)
	return s
}

// rewrite rewrites the file while others wait.
func rewrite(s *Store) error {
	s.begin(patience)
	defer s.finish()
	return s.rewrite()
}

func newKey() (key tokens.Key) {
	rand.Read(key[:])
	return key
}

func newRecord(lifetime time.Duration) *tokens.Record {
	now := time.Now()
	return &tokens.Record{Username: tokens.Share("johndoe"), Scope: tokens.Share("items:read"), Issued: now.Unix(),
		Expires: now.Add(lifetime).Unix(), Since: now.UnixMilli(), Credential: tokens.Credential{1, 2, 3}}
}

// put stores a new token.
func put(t testing.TB, s *Store) tokens.Key {
	t.Helper()
	key := newKey()
	if err := s.Put(t.Context(), key, newRecord(time.Hour)); err != nil {
		t.Fatal(err)
	}
	return key
}

func del(t testing.TB, s *Store, key tokens.Key) {
	t.Helper()
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

func found(s *Store, key tokens.Key) bool {
	record, err := s.Find(context.Background(), key)
	return record != nil && err == nil
}

// wants compares what a store knows about a token.
func wants(t testing.TB, s *Store, key tokens.Key, want bool) {
	t.Helper()
	if got := found(s, key); got != want {
		t.Errorf("found %v, want %v", got, want)
	}
}

func lacks(t testing.TB, s *Store, want string) {
	t.Helper()
	if up, got := s.Status(); !up || got != want {
		t.Errorf("up %v, lacks %q, want %q", up, got, want)
	}
}

const cannotWrite = "the tokens file cannot be written"

// TestMain lets more tests run at a time than there are cores, unless -parallel
// says otherwise: they mostly wait. It lets the heap grow to several megabytes
// before a collection, as each of thousands of starts and rewrites takes one or two.
func TestMain(m *testing.M) {
	flag.Set("test.parallel", "16")
	debug.SetGCPercent(1000)
	os.Exit(m.Run())
}

func TestConformance(t *testing.T) {
	t.Parallel()
	conformance.Run(t, func(t *testing.T) tokens.Store {
		s, _ := open(t, filepath.Join(folder(t), "tokens"))
		return s
	})
	t.Run("after a restart", func(t *testing.T) {
		conformance.Run(t, func(t *testing.T) tokens.Store {
			s, _ := open(t, filepath.Join(folder(t), "tokens"))
			return &restarted{t: t, Store: s}
		})
	})
}

// restarted restarts before each look-up.
type restarted struct {
	t  *testing.T
	mu sync.RWMutex
	*Store
}

func (r *restarted) Put(ctx context.Context, key tokens.Key, record *tokens.Record) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.Store.Put(ctx, key, record)
}

func (r *restarted) Delete(ctx context.Context, key tokens.Key) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.Store.Delete(ctx, key)
}

func (r *restarted) Find(ctx context.Context, key tokens.Key) (*tokens.Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Store.close()
	s, err := Open(Config{r.path}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(s.close)
	r.Store = s
	return s.Find(ctx, key)
}

// TestWhatIsInTheFile wants no token in the file, and nobody else to be able to
// read it.
func TestWhatIsInTheFile(t *testing.T) {
	name := filepath.Join(folder(t), "tokens")
	s, _ := open(t, name)
	key := tokens.KeyOf("the token itself")
	record := &tokens.Record{Username: tokens.Share("jöhn \"doe\"\n"), Issued: 1700000000, Expires: 1 << 40,
		Since: 1700000000123, Credential: tokens.Credential{1, 2, 3}}
	earlier := *record // as an earlier release wrote it
	earlier.Since = 0
	other := newKey()
	for key, record := range map[tokens.Key]*tokens.Record{key: record, other: &earlier} {
		if err := s.Put(t.Context(), key, record); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	line := func(key tokens.Key, since string) string {
		return `(?m)^` + regexp.QuoteMeta("+ "+encoding.EncodeToString(key[:])+
			` 1700000000 1099511627776 AQIDAAAAAAA "jöhn \"doe\"\n" "" `+since) + `[0-9a-f]{8}$`
	}
	for _, want := range []string{`^simple-oauth2 tokens 1\n`, line(key, "1700000000123 "), line(other, "")} {
		if !regexp.MustCompile(want).Match(text) || strings.Count(string(text), "\n") != 3 {
			t.Errorf("in the file:\n%s\nwant %s", text, want)
		}
	}
	s = reopen(t, s)
	for key, want := range map[tokens.Key]*tokens.Record{key: record, other: &earlier} {
		if got, _ := s.Find(t.Context(), key); got == nil || *got != *want {
			t.Errorf("read again: %+v, want %+v", got, want)
		}
	}
	rewrite(s)
	for _, name := range []string{name, name + ".lock"} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
}

// TestMode checks the warning of a file that was there and is not its owner's alone.
func TestMode(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	for _, tt := range []struct {
		mode os.FileMode // 0: no file is there
		want string
	}{
		{0, ""},
		{0o600, ""},
		{0o640, "mode=0640"},
		{0o604, "mode=0604"},
		{0o622, "mode=0622"},
		{0o700, ""},
	} {
		name := filepath.Join(folder(t), "tokens")
		if tt.mode != 0 {
			if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Chmod(name, tt.mode)); err != nil {
				t.Fatal(err)
			}
		}
		_, log := open(t, name)
		var got []string
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "level=WARN") {
				got = append(got, line)
			}
		}
		if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.HasSuffix(got[0], "file="+name+" "+tt.want+"\n")) {
			t.Errorf("%#o: warnings %q, want %q", tt.mode, got, tt.want)
		}
	}
}

func TestTooLongRecord(t *testing.T) {
	s, _ := open(t, filepath.Join(folder(t), "tokens"))
	record := newRecord(time.Hour)
	for _, tt := range []struct {
		length int
		kept   bool
	}{{131_072, true}, {131_073, false}} {
		key := newKey()
		record.Username, record.Scope = tokens.Share(strings.Repeat("\x01", tt.length)), tokens.Shared{}
		if err := s.Put(t.Context(), key, record); (err == nil) != tt.kept {
			t.Errorf("%d bytes: %v", tt.length, err)
		}
		s = reopen(t, s)
		wants(t, s, key, tt.kept)
	}
}

// TestCut cuts the file after each byte.
func TestCut(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	s, _ := open(t, filepath.Join(dir, "tokens"))
	type token struct {
		key          tokens.Key
		put, deleted int // the lines that say so, or 0
	}
	var all [12]token
	for i := range all {
		all[i].key = put(t, s)
		all[i].put = s.end.lines
		if i%3 == 2 {
			before := &all[i-1]
			del(t, s, before.key)
			before.deleted = s.end.lines
		}
	}
	s.close()
	whole, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if len(whole) < 1024 {
		t.Fatalf("%d bytes", len(whole))
	}
	name := filepath.Join(dir, "cut")
	for n := range len(whole) + 1 {
		if err := os.WriteFile(name, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		s, log := open(t, name)
		complete := bytes.Count(whole[:n], []byte("\n"))
		torn := n > 0 && whole[n-1] != '\n'
		if strings.Contains(log.String(), "incomplete last line") != torn {
			t.Errorf("cut after %d bytes, the log says:\n%s", n, log)
		}
		for _, token := range all {
			live := token.put <= complete && (token.deleted == 0 || token.deleted > complete)
			if found(s, token.key) != live {
				t.Errorf("cut after %d bytes: found the token of line %d: %v", n, token.put, !live)
			}
		}
		key := put(t, s)
		s.close()
		if s, err = Open(Config{name}, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatalf("cut after %d bytes, and a line more: %v", n, err)
		}
		wants(t, s, key, true)
		s.close()
	}
}

// TestDamage checks that damage stops the start, and the file does not change.
func TestDamage(t *testing.T) {
	dir := folder(t)
	s, _ := open(t, filepath.Join(dir, "tokens"))
	key := put(t, s)
	put(t, s)
	del(t, s, key)
	put(t, s)
	s.close()
	whole, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "damaged")
	broken := func(what string, line int, text []byte) {
		t.Helper()
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(Config{name}, slog.New(slog.DiscardHandler))
		want := fmt.Sprintf("-tokens-file %s: line %d, at byte ", name, line)
		if line == 1 {
			want = fmt.Sprintf("-tokens-file %s: not a tokens file, or one of another version", name)
		}
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
		if err == nil {
			s.close()
		}
		if now, _ := os.ReadFile(name); !bytes.Equal(now, text) {
			t.Errorf("%s: the file was changed", what)
		}
	}
	for i := range len(whole) - 1 { // the last byte is the last line's end
		for _, bit := range []byte{1, 0x80} {
			text := bytes.Clone(whole)
			text[i] ^= bit
			broken(fmt.Sprintf("byte %d is %q", i, text[i]), bytes.Count(whole[:i], []byte("\n"))+1, text)
		}
	}
	line := bytes.SplitAfter(whole, []byte("\n"))
	join := func(lines ...[]byte) []byte { return bytes.Join(lines, nil) }
	broken("a line is missing", 3, join(line[0], line[1], line[3], line[4]))
	broken("a line is there twice", 3, join(line[0], line[1], line[1], line[2]))
	broken("lines are in another order", 2, join(line[0], line[2], line[1], line[3]))
	broken("an empty line", 3, join(line[0], line[1], []byte("\n"), line[2]))
	broken("a very long line", 3, join(line[0], line[1], bytes.Repeat([]byte("x"), maxLine+1)))
	broken("the header is missing", 1, join(line[1], line[2]))
	broken("a file of users", 1, []byte(`{"jane": {}}`))
	broken("another version", 1, join([]byte("simple-oauth2 tokens 2\n"), line[1]))
	text := encoding.EncodeToString(key[:])
	for _, tt := range []string{"+ ", "- ", "* " + text, "+ " + text + " 1 x", "+ " + text + ` 1 2 AQIDAAAAAAA "" "" x `} {
		p := position{}.after(line[0])
		broken("a right checksum of "+tt, 2, p.after([]byte(tt)).appendSum(join(line[0], []byte(tt))))
	}
}

// TestZeros puts zeros where a power cut kept blocks from the disk.
func TestZeros(t *testing.T) {
	name := filepath.Join(folder(t), "tokens")
	s, _ := open(t, name)
	before := put(t, s)
	start := s.end.offset
	batch := make([]entry, 100)
	for i := range batch {
		batch[i] = entry{newKey(), newRecord(time.Hour)}
	}
	if err := s.append(batch); err != nil {
		t.Fatal(err)
	}
	s.close()
	whole, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(whole))
	last := position{}.after(whole)
	later, _ := last.appendLine(bytes.Clone(whole), entry{newKey(), newRecord(time.Hour)}, false)
	for _, tt := range []struct {
		name     string
		text     []byte
		from, to int64
		by       byte
		starts   bool
	}{
		{"all of the last write", whole, start, size, 0, true},
		{"its first block", whole, start, 4096, 0, true},
		{"a block of it", whole, 4096, 8192, 0, true},
		{"a sector of it", whole, 1024, 1536, 0, true},
		{"its last block", whole, 8192, size, 0, true},
		{"all but its last byte", whole, start, size - 1, 0, true},
		{"the write before", whole, start - 20, start - 1, 0, false},
		{"a block that is not zeros", whole, 4096, 8192, 1, false},
		{"a block with another write behind it", later, 4096, 8192, 0, false},
	} {
		text := bytes.Clone(tt.text)
		for i := tt.from; i < tt.to; i++ {
			text[i] = tt.by
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(Config{name}, slog.New(slog.DiscardHandler))
		if (err == nil) != tt.starts {
			t.Errorf("%s: %v", tt.name, err)
		}
		if now, _ := os.ReadFile(name); err != nil && !bytes.Equal(now, text) {
			t.Errorf("%s: the file was changed", tt.name)
		}
		if err != nil {
			continue
		}
		wants(t, s, before, true)
		after := put(t, s)
		s = reopen(t, s)
		wants(t, s, after, true)
		s.close()
	}
}

func TestStart(t *testing.T) {
	dir := folder(t)
	if err := os.Symlink("nowhere/tokens", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	taken, _ := open(t, filepath.Join(dir, "taken"))
	if err := os.Symlink(taken.path, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, err string }{
		{dir, "open " + dir + ": is a directory"},
		{dir + "/none/tokens", "open " + dir + "/none/tokens: no such file or directory"},
		{dir + "/dangling", "open " + dir + "/dangling: no such file or directory"},
		{dir + "/taken", "lock " + taken.path + ".lock: another process is using this file"},
		{dir + "/link", "lock " + taken.path + ".lock: another process is using this file"},
		{"/dev/null", "not a regular file"},
	} {
		if runtime.GOOS == "windows" {
			t.Skip("the words are those of Unix")
		}
		_, err := Open(Config{tt.name}, slog.New(slog.DiscardHandler))
		if want := "-tokens-file " + tt.name + ": " + tt.err; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	key := put(t, taken)
	wants(t, taken, key, true)
	taken.close()
	link, _ := open(t, filepath.Join(dir, "link"))
	wants(t, link, key, true)
	rewrite(link)
	if info, err := os.Lstat(filepath.Join(dir, "link")); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info.Mode(), err)
	}
}

// TestRewrite rewrites the file while tokens come and go.
func TestRewrite(t *testing.T) {
	s, log := open(t, filepath.Join(folder(t), "tokens"))
	if err := os.WriteFile(s.path+".new", []byte("what a crash left"), 0o600); err != nil {
		t.Fatal(err)
	}
	const clients, each = 8, 200
	done := make(chan struct{})
	var live, gone [clients][]tokens.Key
	go func() {
		defer close(done)
		var all sync.WaitGroup
		for i := range clients {
			all.Go(func() {
				for range each {
					stays, goes := put(t, s), put(t, s)
					del(t, s, goes)
					wants(t, s, stays, true)
					wants(t, s, goes, false)
					live[i], gone[i] = append(live[i], stays), append(gone[i], goes)
				}
			})
		}
		all.Wait()
	}()
	rewrites := 0
	for running := true; running; rewrites++ {
		select {
		case <-done:
			running = false
		default:
			if err := rewrite(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	lacks(t, s, "")
	check := func() {
		for i := range clients {
			for j := range each {
				wants(t, s, live[i][j], true)
				wants(t, s, gone[i][j], false)
			}
		}
	}
	t.Logf("%d rewrites, %d lines", rewrites, s.end.lines)
	s = reopen(t, s)
	check()
	rewrite(s)
	s = reopen(t, s)
	check()
	if want := clients*each + 1; s.end.lines != want {
		t.Errorf("%d lines, want %d", s.end.lines, want)
	}
	if strings.Contains(log.String(), "cannot") {
		t.Errorf("the log says:\n%s", log)
	}
}

// TestRunTidies checks that the file is rewritten once most of it is history, by
// revocation or expiry, and not before.
func TestRunTidies(t *testing.T) {
	dir := folder(t)
	synctest.Test(t, func(t *testing.T) {
		s, log := open(t, filepath.Join(dir, "tokens"))
		var batch []entry
		for i := range 4000 {
			lifetime := time.Minute
			if i%4 == 0 {
				lifetime = time.Hour
			}
			batch = append(batch, entry{newKey(), newRecord(lifetime)})
		}
		if err := s.append(batch); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.Run(ctx); close(done) }()
		for _, tt := range []struct {
			wait  time.Duration
			lines int
		}{
			{55 * time.Second, 4001},
			{20 * time.Second, 1001},
			{10 * time.Minute, 1001},
			{time.Hour, 1001}, // not worth it
		} {
			time.Sleep(tt.wait)
			synctest.Wait()
			s.begin(patience)
			lines := s.end.lines
			s.finish()
			if lines != tt.lines {
				t.Errorf("%d lines, want %d", lines, tt.lines)
			}
		}
		stop()
		<-done
		if text := log.String(); strings.Contains(text, "level=WARN") || strings.Contains(text, "level=ERROR") {
			t.Errorf("a healthy store logs:\n%s", text)
		}
		s.memory.Retain(func(tokens.Key) bool { t.Error("the memory still has a token that expired"); return false })
	})
}
