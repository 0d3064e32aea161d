package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// create makes a log in a directory of the test.
func create(t *testing.T, limits Limits) *Log {
	t.Helper()
	l, err := Create(Path(t.TempDir(), 0), limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func write(t *testing.T, l *Log, stream, text string) {
	t.Helper()
	if err := l.Copy(stream, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
}

func all(t *testing.T, l *Log, o ReadOptions) string {
	t.Helper()
	var out bytes.Buffer
	if err := l.Read(t.Context(), &out, o); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestWhatIsReadIsWhatWasWritten(t *testing.T) {
	long := strings.Repeat("0123456789", 10_000)
	for _, text := range []string{"one\ntwo\n", "", "\n\n", "no end", long + "\nnext\n", long, strings.Repeat("x", maxPart) + "\ny\n", "\x00\xff\xfe binary\r\n"} {
		l := create(t, Limits{})
		write(t, l, "stdout", text)
		if got := all(t, l, ReadOptions{Tail: -1}); got != text {
			t.Errorf("%.40q came back as %.40q (%d, not %d bytes)", text, got, len(got), len(text))
		}
	}
}

func TestTheFileIsAKubelets(t *testing.T) {
	l := create(t, Limits{})
	write(t, l, "stdout", "hello\n")
	write(t, l, "stderr", strings.Repeat("e", maxPart+1)+"\n")
	text, err := os.ReadFile(l.path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		p, err := Parse([]byte(strings.TrimSuffix(line, "\n")))
		if err != nil {
			t.Fatal(err)
		}
		if age := time.Since(p.Time); age < 0 || age > time.Hour {
			t.Errorf("%s is not the time of the line", p.Time)
		}
		got = append(got, fmt.Sprintf("%s %t %d", p.Stream, p.Full, len(p.Text)))
	}
	if want := "stdout true 5, stderr false 16384, stderr true 1"; strings.Join(got, ", ") != want {
		t.Errorf("lines are %s, not %s", strings.Join(got, ", "), want)
	}
	if info, err := os.Stat(l.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
}

func TestReadOptions(t *testing.T) {
	l := create(t, Limits{})
	for _, line := range []string{
		"2026-01-01T00:00:01.000000000Z stdout F one",
		"2026-01-01T00:00:02.000000000Z stderr F two",
		"this is no line of a log",
		"2026-01-01T00:00:03.000000000Z stdout P thr",
		"2026-01-01T00:00:03.500000000Z stdout F ee",
		"2026-01-01T00:00:04.000000000Z stdout F four",
	} {
		if _, err := l.file.WriteString(line + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		o    ReadOptions
		want string
	}{
		{"all", ReadOptions{Tail: -1}, "one\ntwo\nthree\nfour\n"},
		{"one stream", ReadOptions{Tail: -1, Stream: "stderr"}, "two\n"},
		{"the last lines", ReadOptions{Tail: 1}, "four\n"},
		{"more than there are", ReadOptions{Tail: 100}, "one\ntwo\nthree\nfour\n"},
		{"none", ReadOptions{Tail: 0}, ""},
		{"since", ReadOptions{Tail: -1, Since: time.Date(2026, 1, 1, 0, 0, 3, 0, time.UTC)}, "three\nfour\n"},
		{"bytes", ReadOptions{Tail: -1, LimitBytes: 6}, "one\ntw"},
		{"times, once a line", ReadOptions{Tail: 3, Timestamps: true},
			"2026-01-01T00:00:03.000000000Z three\n2026-01-01T00:00:04.000000000Z four\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := all(t, l, c.o); got != c.want {
				t.Errorf("got %q, not %q", got, c.want)
			}
		})
	}
}

func TestRotation(t *testing.T) {
	l := create(t, Limits{MaxBytes: 1000, MaxFiles: 3})
	var text strings.Builder
	for i := range 200 {
		fmt.Fprintf(&text, "line %03d\n", i)
	}
	write(t, l, "stdout", text.String())
	files, err := filepath.Glob(l.path + "*")
	if err != nil || len(files) != 3 {
		t.Fatalf("files are %q, %v: want 3", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > 1000 {
			t.Errorf("%s has %d bytes, %v", f, info.Size(), err)
		}
	}
	kept := all(t, l, ReadOptions{Tail: -1})
	if !strings.HasSuffix(text.String(), kept) || len(kept) < 9*30 {
		t.Errorf("kept are not the last lines: %q", kept)
	}
	if got := all(t, l, ReadOptions{Tail: 40}); got != kept[len(kept)-40*9:] {
		t.Errorf("the last 40 lines are not those of all files: %q", got)
	}
	again, err := Create(l.path, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := all(t, again, ReadOptions{Tail: -1}); got != "" {
		t.Errorf("a new log begins with %q", got)
	}
}

// A container may print faster than somebody reads. What was there is read then, and no more.
func TestReadingEndsWhileMoreIsWritten(t *testing.T) {
	for _, x := range []struct {
		name string
		o    ReadOptions
		want string
	}{
		{"all", ReadOptions{Tail: -1}, strings.Repeat("before\n", 20)},
		{"the last", ReadOptions{Tail: 1}, "before\n"},
		{"none", ReadOptions{Tail: 0}, ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			l := create(t, Limits{MaxBytes: 4000, MaxFiles: 100})
			write(t, l, "stdout", strings.Repeat("before\n", 20))
			var got strings.Builder
			out := writerFunc(func(p []byte) (int, error) {
				if got.Len() > 10000 {
					return 0, errors.New("it does not end")
				}
				got.Write(p)
				write(t, l, "stdout", strings.Repeat("after\n", 1000))
				return len(p), nil
			})
			r := &reading{path: l.path, live: l, out: bufio.NewWriterSize(out, 16), o: x.o, middle: map[string]bool{}}
			if err := r.all(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got.String() != x.want {
				t.Errorf("read %q", got.String())
			}
		})
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestFollowAcrossRotation(t *testing.T) {
	l := create(t, Limits{MaxBytes: 600, MaxFiles: 50})
	read, written := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- l.Read(context.Background(), written, ReadOptions{Follow: true, Tail: -1})
		_ = written.Close()
	}()
	var want strings.Builder
	go func() {
		for i := range 300 {
			_ = l.Copy("stdout", strings.NewReader(fmt.Sprintf("line %d\n", i)))
		}
		_ = l.Close()
	}()
	for i := range 300 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	got, err := io.ReadAll(read)
	if err != nil || <-done != nil {
		t.Fatal(err)
	}
	// Files that go before they are read are lost, their order never.
	if kept := string(got); kept != want.String() {
		t.Errorf("a follower saw %d of %d bytes", len(kept), want.Len())
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	l := create(t, Limits{})
	write(t, l, "stdout", "first\n")
	ctx, cancel := context.WithCancel(t.Context())
	read, out := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- l.Read(ctx, out, ReadOptions{Follow: true, Tail: -1}) }()
	line := make([]byte, 6)
	if _, err := io.ReadFull(read, line); err != nil || string(line) != "first\n" {
		t.Fatalf("%q, %v", line, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestALogOfAnEarlierNode(t *testing.T) {
	l := create(t, Limits{MaxBytes: 300, MaxFiles: 10})
	for i := range 20 {
		write(t, l, "stdout", fmt.Sprintf("line %d\n", i))
	}
	want := all(t, l, ReadOptions{Tail: -1})
	_ = l.Close()
	var out bytes.Buffer
	if err := Read(t.Context(), l.path, &out, ReadOptions{Tail: -1, Follow: true}); err != nil || out.String() != want {
		t.Errorf("%q, %v, not %q", out.String(), err, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, line := range []string{"2026-01-01T00:00:01.000000000Z stdout F one", "2026-01-01T00:00:01Z stderr P ", "x stdout F", "", "2026-01-01T00:00:01Z stdout F"} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		l, err := Parse(line)
		if err != nil {
			return
		}
		if l.Stream != "stdout" && l.Stream != "stderr" || len(l.Text) > len(line) || !bytes.HasSuffix(line, l.Text) {
			t.Errorf("%q was read as %+v", line, l)
		}
	})
}

func FuzzReadAnyFile(f *testing.F) {
	f.Add([]byte("2026-01-01T00:00:01.000000000Z stdout F one\n2026-01-01T00:00:01.000000000Z stdout F two"), int64(1))
	f.Add([]byte("\n\n\n"), int64(2))
	f.Fuzz(func(t *testing.T, text []byte, tail int64) {
		path := Path(t.TempDir(), 0)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := Read(t.Context(), path, &out, ReadOptions{Tail: tail}); err != nil {
			t.Fatal(err)
		}
		if out.Len() > len(text) {
			t.Errorf("%d bytes came of %d", out.Len(), len(text))
		}
	})
}
