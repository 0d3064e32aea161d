package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimVariable); dir != "" {
		victim(dir)
	}
	goleak.VerifyTestMain(m)
}

// set puts a value under a key, or deletes it when there is none, whatever was there.
func set(t testing.TB, s *Store, key, value string) uint64 {
	t.Helper()
	rev, err := trySet(s, key, value)
	if err != nil {
		t.Fatalf("writing %s: %v", key, err)
	}
	return rev
}

func trySet(s *Store, key, value string) (uint64, error) {
	w := &write{key: key}
	if it, _ := s.get(key); it != nil {
		w.expect = it.rev
	}
	if value != "" {
		w.value = []byte(value)
	}
	return s.commit(context.Background(), w)
}

// contents are the values by their keys.
func contents(s *state) map[string]string {
	values := map[string]string{}
	for _, it := range s.list(span{"/", true}, "", s.rev) {
		values[it.key] = string(it.value)
	}
	return values
}

// A script is a history of writes: the file that they leave, and what was there after each.
type script struct {
	file   []byte
	ends   []int64 // of the base and of each write
	after  []map[string]string
	writes [][2]string // key, value
}

func newScript(t *testing.T, writes int) script {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	random := rand.New(rand.NewPCG(1, 2))
	sc := script{}
	note := func() {
		info, err := os.Stat(filepath.Join(dir, fileName))
		if err != nil {
			t.Fatal(err)
		}
		sc.ends = append(sc.ends, info.Size())
		sc.after = append(sc.after, contents(s.state))
	}
	note()
	for i := range writes {
		key := fmt.Sprintf("/pods/%d", random.IntN(5))
		value := ""
		if it, _ := s.get(key); it == nil || random.IntN(3) > 0 {
			value = strings.Repeat(string(recordMagic), random.IntN(3)) + fmt.Sprint("value ", i)
		}
		set(t, s, key, value)
		sc.writes = append(sc.writes, [2]string{key, value})
		note()
	}
	var err error
	if sc.file, err = os.ReadFile(filepath.Join(dir, fileName)); err != nil {
		t.Fatal(err)
	}
	return sc
}

// without is what is there when all but one of the writes are.
func (sc script) without(lost int) map[string]string {
	values := map[string]string{}
	for i, w := range sc.writes {
		switch {
		case i == lost:
		case w[1] == "":
			delete(values, w[0])
		default:
			values[w[0]] = w[1]
		}
	}
	return values
}

// recovered loads a file and looks that what was mended is sound: a second load finds nothing.
func recovered(t *testing.T, dir string, file []byte) (map[string]string, []Problem) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, fileName), file, 0o600); err != nil {
		t.Fatal(err)
	}
	first := newState(64)
	l, problems, err := load(dir, first)
	if err != nil {
		t.Fatal(err)
	}
	l.file.Close()
	second := newState(64)
	l, again, err := load(dir, second)
	if err != nil || len(again) > 0 {
		t.Fatalf("the second load: %v %v", again, err)
	}
	l.file.Close()
	if !maps.Equal(contents(first), contents(second)) {
		t.Fatalf("the second load has %v, the first had %v", contents(second), contents(first))
	}
	return contents(first), problems
}

// A power cut leaves the beginning of the file: whatever its length, the state is that after the
// last write that is whole.
func TestTruncationAtEveryOffset(t *testing.T) {
	sc := newScript(t, 40)
	dir := t.TempDir()
	whole := 0
	for size := range len(sc.file) + 1 {
		for whole+1 < len(sc.ends) && sc.ends[whole+1] <= int64(size) {
			whole++
		}
		got, problems := recovered(t, dir, sc.file[:size])
		if int64(size) < sc.ends[0] { // not even the base
			whole = 0
		}
		if !maps.Equal(got, sc.after[whole]) {
			t.Fatalf("cut at %d, after write %d: %v, want %v", size, whole, got, sc.after[whole])
		}
		atEnd := size == 0 || int64(size) == sc.ends[whole]
		if atEnd != (len(problems) == 0) || !atEnd && problems[0].Moved != "" {
			t.Fatalf("cut at %d: %v", size, problems)
		}
	}
}

// The end of a file that was made longer, but not written before the power went, reads as zeros.
func TestEndOfZerosIsAnUnfinishedWrite(t *testing.T) {
	sc := newScript(t, 5)
	got, problems := recovered(t, t.TempDir(), append(sc.file, make([]byte, 100)...))
	if !maps.Equal(got, sc.after[5]) || len(problems) != 1 || problems[0].Lost != 100 || problems[0].Moved != "" {
		t.Fatalf("%v %v", got, problems)
	}
}

// Any byte of the file may change: only the write that it is part of is lost, and the file is kept.
func TestDamageAtEveryOffset(t *testing.T) {
	sc := newScript(t, 15)
	dir := t.TempDir()
	lost := -1
	for at := range sc.file {
		if int64(at) >= sc.ends[lost+1] {
			lost++
		}
		file := bytes.Clone(sc.file)
		file[at] ^= 0x41
		got, problems := recovered(t, dir, file)
		if want := sc.without(lost); !maps.Equal(got, want) {
			t.Fatalf("damage at %d, of write %d: %v, want %v", at, lost, got, want)
		}
		if len(problems) != 1 || problems[0].Kept != len(got) || problems[0].File != filepath.Join(dir, fileName) {
			t.Fatalf("damage at %d: %v", at, problems)
		}
		moved := problems[0].Moved
		if moved == "" {
			// The length of the last record now reaches beyond the end, as that of an unfinished one.
			if lost != len(sc.writes)-1 {
				t.Fatalf("damage at %d: the file is not kept", at)
			}
			continue
		}
		if kept, err := os.ReadFile(moved); err != nil || !bytes.Equal(kept, file) {
			t.Fatalf("damage at %d: %s is not the damaged file: %v", at, moved, err)
		}
		if err := os.Remove(moved); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamagedFilesAreNumbered(t *testing.T) {
	sc := newScript(t, 3)
	sc.file[sc.ends[0]+20] ^= 1
	dir := t.TempDir()
	var names []string
	for range maxMoved + 2 {
		_, problems := recovered(t, dir, sc.file)
		names = append(names, filepath.Base(problems[0].Moved))
	}
	want := "objects.log.damaged-1 objects.log.damaged-2 objects.log.damaged-3 objects.log.damaged-4 objects.log.damaged-5 " +
		"objects.log.damaged-6 objects.log.damaged-7 objects.log.damaged-8 objects.log.damaged-9 objects.log.damaged-9 objects.log.damaged-9"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("%s", got)
	}
}

// After damage no revision comes again that a client may have seen, and no watch goes on from one.
func TestRevisionAfterDamage(t *testing.T) {
	sc := newScript(t, 10)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), sc.file[:len(sc.file)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	s, problems, err := Open(Options{Dir: dir})
	if err != nil || len(problems) != 1 {
		t.Fatalf("%v %v", problems, err)
	}
	defer s.Close()
	if !strings.Contains(problems[0].String(), "the last write was not finished") {
		t.Error(problems[0])
	}
	if s.revision() < 11 || s.compacted() != s.revision() {
		t.Errorf("revision %d, window from %d", s.revision(), s.compacted())
	}
	gap := s.revision()
	set(t, s, "/pods/a", "after")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{Dir: dir})
	if s.revision() != gap+1 || s.compacted() != gap {
		t.Errorf("after a restart: revision %d, window from %d; the gap ends at %d", s.revision(), s.compacted(), gap)
	}
}

func TestFileOfANewerProgram(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	file := appendRecord(nil, record{kind: recordBase, version: formatVersion + 1, item: item{rev: 7}})
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := Open(Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "use the newer program") {
		t.Fatalf("%v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, file) {
		t.Errorf("the file was changed: %v", err)
	}
}

// A restart finds objects, revision and window as they were: watches go on where they were.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	set(t, s, "/pods/a", "1")
	set(t, s, "/pods/b", "2")
	set(t, s, "/pods/a", "")
	want, rev := contents(s.state), s.revision()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := trySet(s, "/pods/c", "3"); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("a write after Close: %v", err)
	}
	s = open(t, Options{Dir: dir})
	if got := contents(s.state); !maps.Equal(got, want) || s.revision() != rev || s.compacted() != firstRevision {
		t.Errorf("%v, revision %d, window from %d; want %v, %d, %d", got, s.revision(), s.compacted(), want, rev, firstRevision)
	}
	if e := s.state.window.at(rev); e.item != nil || string(e.prev.value) != "1" {
		t.Errorf("the last write was %v", e)
	}
}

func TestOneServerPerDirectory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	_, _, err := Open(Options{Dir: dir})
	want := fmt.Sprintf("%s is in use by another API server (process %d)", dir, os.Getpid())
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("%v, want %q", err, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, Options{Dir: dir})
}

func TestFilesAreForTheirOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "when", "missing")
	set(t, open(t, Options{Dir: dir}), "/secrets/a", "password")
	for _, name := range []string{fileName, lockName, "."} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
}

// A file that is mostly history is replaced by a snapshot, and what is written after that is found.
func TestFileIsBounded(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	value := strings.Repeat("x", 100<<10)
	set(t, s, "/pods/first", "kept")
	for i := range 200 {
		set(t, s, fmt.Sprintf("/pods/%d", i%3), fmt.Sprint(i, value))
	}
	set(t, s, "/pods/last", "kept")
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil || info.Size() > minFile+int64(len(value)) {
		t.Errorf("%d bytes for %d: %v", info.Size(), s.state.bytes, err)
	}
	want, rev := contents(s.state), s.revision()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{Dir: dir})
	if !maps.Equal(contents(s.state), want) || s.revision() != rev {
		t.Errorf("revision %d, want %d, or other contents", s.revision(), rev)
	}
	if _, err := os.Stat(filepath.Join(dir, newFileName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", newFileName, err)
	}
}

// A flush that fails may have lost any bytes of the file: a new one is made from memory.
func TestFailedFlush(t *testing.T) {
	dir := t.TempDir()
	s := &Store{options: Options{Dir: dir}.withDefaults(), state: newState(16)}
	file, _, err := load(dir, s.state)
	if err != nil {
		t.Fatal(err)
	}
	w := newWriter(s, file)
	w.commit([]*write{{key: "/pods/a", value: []byte("1")}})
	if err := os.Truncate(file.path(), 0); err != nil { // what the kernel dropped
		t.Fatal(err)
	}
	w.flushEnded(syscall.EIO)
	w.commit([]*write{{key: "/pods/b", value: []byte("2")}})
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	again := open(t, Options{Dir: dir})
	if got, want := contents(again.state), map[string]string{"/pods/a": "1", "/pods/b": "2"}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	s := open(t, Options{MaxBytes: 10 << 10})
	value := strings.Repeat("x", 1000)
	var err error
	n := 0
	for ; err == nil; n++ {
		_, err = trySet(s, fmt.Sprintf("/pods/%d", n), value)
	}
	if statusCode(err) != 507 || !strings.Contains(err.Error(), "delete some") || n < 8 {
		t.Fatalf("write %d: %v", n, err)
	}
	set(t, s, "/pods/0", "")
	set(t, s, "/pods/1", "smaller")
	set(t, s, "/pods/new", value)
}

// The time to live of an object goes on after a restart, but the clock cannot prolong it.
func TestClockIsSet(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, test := range []struct {
		name string
		end  time.Duration // as the clock has it now
		want time.Duration
	}{
		{"it runs", 10 * time.Minute, 10 * time.Minute},
		{"it was set back by a day", 24*time.Hour + 10*time.Minute, time.Hour},
		{"it was set on by a day", 10*time.Minute - 24*time.Hour, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			it := item{ttl: 3600, expires: now.Add(test.end)}
			if got := it.own(now).expires.Sub(now); got != test.want {
				t.Errorf("lives for %v, want %v", got, test.want)
			}
		})
	}
}

// Files of a state that could not be opened.
func TestUnusableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := Open(Options{Dir: file, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, syscall.ENOTDIR) || !strings.Contains(err.Error(), file) {
		t.Errorf("%v", err)
	}
}
