package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// ReadOptions say what of a log is wanted.
type ReadOptions struct {
	Follow     bool
	Tail       int64 // last lines; negative: all
	Since      time.Time
	Timestamps bool
	LimitBytes int64  // zero: none
	Stream     string // "stdout" or "stderr"; "" is both
}

// A Line is one line of a file.
type Line struct {
	Time   time.Time
	Stream string
	Full   bool // ends a line of the container
	Text   []byte
}

// Parse reads a line of a file, without its end.
func Parse(line []byte) (Line, error) {
	var l Line
	stamp, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return l, errors.New("log line without stream")
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return l, fmt.Errorf("log line: %w", err)
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	if s := string(stream); !ok || s != "stdout" && s != "stderr" {
		return l, fmt.Errorf("log line of stream %q", stream)
	}
	tag, text, _ := bytes.Cut(rest, []byte{' '})
	switch string(tag) {
	case "F":
		l.Full = true
	case "P":
	default:
		return l, fmt.Errorf("log line with tag %q", tag)
	}
	l.Time, l.Stream, l.Text = at, string(stream), text
	return l, nil
}

// Read writes what the run has printed. With Follow it goes on until the run or the
// context ends.
func (l *Log) Read(ctx context.Context, w io.Writer, o ReadOptions) error {
	return read(ctx, l.path, l, w, o)
}

// Read writes the log of a run that is over, or whose node is.
func Read(ctx context.Context, path string, w io.Writer, o ReadOptions) error {
	return read(ctx, path, nil, w, o)
}

// A reading is one Read on its way.
type reading struct {
	path   string
	live   *Log // nil: nothing is written any more
	out    *bufio.Writer
	o      ReadOptions
	left   int64
	end    place           // of what was written when the reading began; none with Follow
	middle map[string]bool // streams whose last part has more to come

	file   *os.File
	number int // of the file that is read, once it is full
	text   *bufio.Reader
	piece  []byte // of a line that is being written
}

func read(ctx context.Context, path string, live *Log, w io.Writer, o ReadOptions) error {
	r := &reading{path: path, live: live, out: bufio.NewWriterSize(w, 32<<10), o: o, left: o.LimitBytes, middle: map[string]bool{}}
	return r.all(ctx)
}

// all writes what is wanted.
func (r *reading) all(ctx context.Context) error {
	defer func() {
		if r.file != nil {
			_ = r.file.Close()
		}
	}()
	if err := r.begin(); err != nil {
		return err
	}
	for {
		changed, over := r.watch()
		if err := r.rest(ctx); err != nil {
			if errors.Is(err, errLimit) {
				err = nil
			}
			return errors.Join(err, r.out.Flush())
		}
		if err := r.out.Flush(); err != nil {
			return err
		}
		if over || !r.o.Follow {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// errLimit ends a reading at its limit of bytes.
var errLimit = errors.New("limit of bytes")

// watch returns what is closed when more is there than rest will find, and whether
// nothing more will come.
func (r *reading) watch() (changed <-chan struct{}, over bool) {
	if r.live == nil {
		return nil, true
	}
	r.live.mu.Lock()
	defer r.live.mu.Unlock()
	return r.live.changed, r.live.closed
}

// begin opens the file in which the wanted lines begin.
func (r *reading) begin() error {
	defer r.hold()()
	all := numbers(r.path)
	slices.Sort(all)
	last := 0
	if len(all) > 0 {
		last = all[len(all)-1]
	}
	if r.live != nil {
		last = r.live.number
	}
	all = append(all, last+1)
	from, err := r.tail(all)
	if err != nil {
		return err
	}
	if r.live != nil && !r.o.Follow { // who writes faster than it is read would be read for ever
		info, err := os.Stat(r.path)
		if err != nil {
			return err
		}
		r.end = place{last + 1, info.Size()}
	}
	return r.open(all[from.file], from.offset)
}

// ends reports whether a file is the last that is read.
func (r *reading) ends(number int) bool { return r.end.file > 0 && number >= r.end.file }

// hold keeps files from being put aside until the function it returns is called.
func (r *reading) hold() func() {
	if r.live == nil {
		return func() {}
	}
	r.live.mu.Lock()
	return r.live.mu.Unlock
}

// open opens a full file by its number, or the one being written under the number that it
// will have.
func (r *reading) open(number int, offset int64) error {
	file, err := os.Open(full(r.path, number))
	if errors.Is(err, fs.ErrNotExist) {
		file, err = os.Open(r.path)
	}
	if err != nil {
		return err
	}
	if r.file != nil {
		_ = r.file.Close()
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		_ = file.Close()
		return err
	}
	from := io.Reader(file)
	if r.ends(number) {
		from = io.LimitReader(file, r.end.offset-offset)
	}
	r.file, r.number, r.text = file, number, bufio.NewReaderSize(from, 64<<10)
	return nil
}

// rest writes all that is there.
func (r *reading) rest(ctx context.Context) error {
	for {
		if err := r.lines(ctx); err != nil {
			return err
		}
		next, ok := r.following()
		if !ok {
			return nil
		}
		// What was written before the file was put aside.
		if err := r.lines(ctx); err != nil {
			return err
		}
		free := r.hold()
		err := r.open(next, 0)
		free()
		if err != nil {
			return err
		}
	}
}

// following is the number of the file after the one that is read, if that is full.
func (r *reading) following() (int, bool) {
	written := 0 // the number that the file being written will have
	for _, n := range numbers(r.path) {
		written = max(written, n+1)
	}
	if r.live != nil {
		free := r.hold()
		written = r.live.number + 1
		free()
	}
	if r.number >= written || r.ends(r.number) {
		return 0, false
	}
	for n := r.number + 1; n < written && !r.ends(n-1); n++ {
		if _, err := os.Stat(full(r.path, n)); err == nil {
			return n, true
		}
	}
	return written, !r.ends(written - 1)
}

// lines writes the lines of the open file, to its end.
func (r *reading) lines(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return nil
		}
		piece, err := r.text.ReadSlice('\n')
		if errors.Is(err, io.EOF) || errors.Is(err, bufio.ErrBufferFull) {
			if len(r.piece)+len(piece) > 2*maxLine {
				r.piece = r.piece[:0] // no line of ours
			}
			r.piece = append(r.piece, piece...)
			if errors.Is(err, io.EOF) {
				return nil
			}
			continue
		}
		if err != nil {
			return err
		}
		line := append(r.piece, piece...)
		r.piece = r.piece[:0]
		if err := r.line(bytes.TrimSuffix(line, []byte{'\n'})); err != nil {
			return err
		}
	}
}

// line writes one line, if it is wanted. Lines that are damaged are left out.
func (r *reading) line(text []byte) error {
	l, err := Parse(text)
	if err != nil || r.o.Stream != "" && l.Stream != r.o.Stream || l.Time.Before(r.o.Since) {
		return nil
	}
	if r.o.Timestamps && !r.middle[l.Stream] {
		if err := r.put([]byte(l.Time.UTC().Format(timeFormat) + " ")); err != nil {
			return err
		}
	}
	r.middle[l.Stream] = !l.Full
	if err := r.put(l.Text); err != nil || !l.Full {
		return err
	}
	return r.put([]byte{'\n'})
}

func (r *reading) put(text []byte) error {
	if r.o.LimitBytes > 0 {
		if int64(len(text)) >= r.left {
			if _, err := r.out.Write(text[:r.left]); err != nil {
				return err
			}
			return errLimit
		}
		r.left -= int64(len(text))
	}
	_, err := r.out.Write(text)
	return err
}

// A place is in a file, by its number or its index in a list, and an offset there.
type place struct {
	file   int
	offset int64
}

// tail finds where the wanted last lines begin in the files of these numbers.
func (r *reading) tail(files []int) (place, error) {
	if r.o.Tail < 0 {
		return place{}, nil
	}
	left := r.o.Tail
	for i, number := range slices.Backward(files) {
		name := full(r.path, number)
		if i == len(files)-1 {
			name = r.path
		}
		offset, found, err := lastLines(name, left)
		if err != nil {
			return place{}, err
		}
		if left -= found; left <= 0 {
			return place{i, offset}, nil
		}
	}
	return place{}, nil
}

// lastLines finds where the last n lines of a file begin, and how many of them it has.
func lastLines(name string, n int64) (offset, found int64, err error) {
	file, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer file.Close()
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return end, 0, err
	}
	chunk := make([]byte, 64<<10)
	for at := end; at > 0; {
		size := min(int64(len(chunk)), at)
		at -= size
		if _, err := file.ReadAt(chunk[:size], at); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		for i := size - 1; i >= 0; i-- {
			if chunk[i] != '\n' || at+i == end-1 {
				continue
			}
			if found++; found == n {
				return at + i + 1, found, nil
			}
		}
	}
	if end > 0 {
		found++
	}
	return 0, found, nil
}
