package accesslog

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

const (
	flushSize   = 64 << 10
	maxBuffered = 1 << 20
)

// Files owns the open log files of a proxy. It is safe for concurrent use.
type Files struct {
	buffered, completed, dropped, failed, reopenFailed, byTimer *stats.Counter
	waiting                                                     *stats.Gauge // bytes in buffers

	interval time.Duration
	mute     bool // all paths lead nowhere

	mu     sync.Mutex
	byPath map[string]*file
}

// NewFiles returns a set without open files, whose lines are written at the latest
// when interval has passed (Envoy's --file-flush-interval-msec). Its stats in scope are Envoy's
// filesystem.write_buffered, write_completed, write_failed, reopen_failed, flushed_by_timer and
// write_total_buffered, and write_dropped for lines that found their buffer full.
func NewFiles(scope *stats.Scope, interval time.Duration) *Files {
	s := scope.Scope("filesystem")
	return &Files{
		buffered: s.Counter("write_buffered"), completed: s.Counter("write_completed"), dropped: s.Counter("write_dropped"),
		byTimer: s.Counter("flushed_by_timer"), waiting: s.Gauge("write_total_buffered"),
		failed: s.Counter("write_failed"), reopenFailed: s.Counter("reopen_failed"), byPath: map[string]*file{}, interval: interval,
	}
}

// Mute has files that are opened from now on lead nowhere: those of a proxy that serves nobody.
func (fs *Files) Mute() { fs.mute = true }

// open returns the file of a path, opened by the first who asks.
func (fs *Files) open(path string) (*file, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.byPath[path]; f != nil {
		f.users++
		return f, nil
	}
	if fs.mute {
		path = os.DevNull
	}
	out, err := openFile(path)
	if err != nil {
		return nil, err
	}
	f := &file{
		stats: fs, path: path, out: out, users: 1,
		turn: make(chan struct{}, 1), dirty: make(chan struct{}, 1), full: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	fs.byPath[path] = f
	go f.run()
	return f, nil
}

// openFile opens for appending. The standard streams are those of the process:
// opened by path they would lose their offset, and fail where they are sockets. A pipe
// without a reader is an error rather than a reason to wait for one.
func openFile(path string) (*os.File, error) {
	switch path {
	case "/dev/stdout":
		return os.Stdout, nil
	case "/dev/stderr":
		return os.Stderr, nil
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o644) //nolint:gosec // collectors of logs run as other users
	if err != nil {
		return nil, fmt.Errorf("access log file: %w", err)
	}
	return out, nil
}

func closeFile(out *os.File) {
	if out != os.Stdout && out != os.Stderr {
		out.Close()
	}
}

// release gives up one use of f and closes it after the last.
func (fs *Files) release(f *file) {
	fs.mu.Lock()
	f.users--
	last := f.users == 0
	if last && fs.byPath[f.path] == f {
		delete(fs.byPath, f.path)
	}
	fs.mu.Unlock()
	if last {
		f.close()
	}
}

func (fs *Files) list() []*file {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var all []*file
	for _, f := range fs.byPath {
		all = append(all, f)
	}
	return all
}

// Flush writes out what is buffered for all files.
func (fs *Files) Flush() {
	for _, f := range fs.list() {
		f.flush()
	}
}

// Reopen opens every file anew by its path, after an outside program moved it away.
// A file that cannot be opened goes on with the old one and is part of the error.
func (fs *Files) Reopen() error {
	var all error
	for _, f := range fs.list() {
		if err := f.reopen(); err != nil {
			fs.reopenFailed.Inc()
			all = errors.Join(all, err)
		}
	}
	return all
}

// Close writes out and closes all files, also those whose loggers are still open;
// what those log afterwards is dropped, and so is what a file does not take within 2 s.
func (fs *Files) Close() {
	var all sync.WaitGroup
	for _, f := range fs.list() {
		all.Go(f.close)
	}
	all.Wait()
}

// A file is one open log file with its two buffers.
type file struct {
	stats *Files
	path  string
	users int // guarded by stats.mu

	mu     sync.Mutex // guards active, closed and the change of out, held for no I/O
	active []byte     // takes lines
	closed bool
	out    *os.File // used by who has the turn

	turn  chan struct{} // full while somebody writes: a lock that can be waited for with patience
	spare []byte        // of who has the turn

	dirty   chan struct{} // the first line came into an empty buffer
	full    chan struct{} // flushSize is reached
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once
}

// write appends a line to the buffer, or drops it when there is no place.
func (f *file) write(line []byte) {
	f.mu.Lock()
	before := len(f.active)
	if f.closed || before+len(line) > maxBuffered {
		f.mu.Unlock()
		f.stats.dropped.Inc()
		return
	}
	f.active = append(f.active, line...)
	after := len(f.active)
	f.mu.Unlock()
	f.stats.buffered.Inc()
	f.stats.waiting.Add(int64(len(line)))
	if before == 0 {
		wake(f.dirty)
	}
	if after >= flushSize && before < flushSize {
		wake(f.full)
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes the buffer out a period after its first line, or when it is full. An
// idle file costs nothing.
func (f *file) run() {
	defer close(f.stopped)
	timer := time.NewTimer(f.stats.interval)
	defer timer.Stop()
	for {
		select {
		case <-f.dirty:
		case <-f.stop:
			return
		}
		timer.Reset(f.stats.interval)
		select {
		case <-timer.C:
			f.stats.byTimer.Inc()
		case <-f.full:
		case <-f.stop:
			return
		}
		f.flush()
	}
}

// patience is how long somebody waits for a file that takes no bytes: a pipe that its
// reader has forgotten must not keep the proxy from ending, or from anything else.
const patience = 2 * time.Second

// flush writes out what is buffered.
func (f *file) flush() {
	f.turn <- struct{}{}
	f.writeOut()
	<-f.turn
}

// writeOut is for who has the turn. What the disk refuses is dropped and counted.
func (f *file) writeOut() {
	f.mu.Lock()
	out := f.active
	f.active = f.spare[:0]
	f.mu.Unlock()
	f.spare = out
	if len(out) == 0 {
		return
	}
	f.stats.waiting.Add(-int64(len(out)))
	if _, err := f.out.Write(out); err != nil {
		f.stats.failed.Inc()
	} else {
		f.stats.completed.Inc()
	}
}

func (f *file) reopen() error {
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case f.turn <- struct{}{}:
	case <-late.C:
		return fmt.Errorf("access log file %s: not opened anew while it takes no bytes", f.path)
	}
	defer func() { <-f.turn }()
	_ = f.out.SetWriteDeadline(time.Now().Add(patience)) // of a pipe; others have none
	f.writeOut()                                         // what was logged before belongs to the old file
	_ = f.out.SetWriteDeadline(time.Time{})
	out, err := openFile(f.path)
	if err != nil {
		return err
	}
	if out != f.out {
		closeFile(f.out)
		f.mu.Lock()
		f.out = out
		f.mu.Unlock()
	}
	return nil
}

// close ends the goroutine, writes out and closes. What a pipe does not take in time is
// lost.
func (f *file) close() {
	f.once.Do(func() {
		f.mu.Lock()
		f.closed = true
		f.mu.Unlock()
		close(f.stop)
		done := make(chan struct{})
		go func() {
			defer close(done)
			<-f.stopped
			f.turn <- struct{}{}
			f.writeOut()
			closeFile(f.out)
			<-f.turn
		}()
		late := time.NewTimer(patience)
		defer late.Stop()
		select {
		case <-done:
		case <-late.C:
			f.mu.Lock()
			_ = f.out.SetWriteDeadline(time.Now()) // a standard stream has none, and ends with the process
			f.mu.Unlock()
		}
	})
}
