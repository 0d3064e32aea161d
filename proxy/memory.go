package proxy

import (
	"bufio"
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// trimAfter is how long changes must have ceased before memory is given back.
const trimAfter = 2 * time.Second

// trimMemory gives the garbage of a change of configuration back to the system when
// changes have ceased for a moment.
func (s *server) trimMemory() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trim == nil {
		s.trim = time.AfterFunc(trimAfter, func() {
			debug.FreeOSMemory()
			dropProgramPages()
		})
		return
	}
	s.trim.Reset(trimAfter)
}

const (
	// sweepEvery is how often the heap is looked at, and looseBytes what may lie about in
	// it since it was swept.
	sweepEvery = 3 * time.Second
	looseBytes = 4 << 20
	// restBytes are allocated and never touched, so that they take no memory, but count: the
	// collector comes after at least as many bytes of garbage, not after four MiB, which is a
	// hundred handshakes.
	restBytes = 8 << 20
)

// sweepMemory gives back what a storm of connections has left: requests allocate
// nothing, so without it the next collection would come minutes later, and each idle
// connection would keep the stack and the buffers of its last request until then. While
// collections come by themselves it does nothing.
func (s *server) sweepMemory() {
	rest := make([]byte, restBytes)
	defer runtime.KeepAlive(rest)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var h, seen, swept heap
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		h.read()
		if h.collections == seen.collections && (h.collections != swept.collections || h.objects > swept.objects+looseBytes) {
			runtime.GC() // what pools hold goes with the second collection
			debug.FreeOSMemory()
			dropProgramPages() // which the collector has looked at
			swept.read()
			h = swept
		}
		seen = h
	}
}

// A heap is its state at one time.
type heap struct{ collections, objects uint64 }

func (h *heap) read() {
	m := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(m)
	h.collections, h.objects = m[0].Value.Uint64(), m[1].Value.Uint64()
}

// dropProgramPages unmaps the pages of the program file that were only needed to
// start: the descriptors of a thousand message types are read once, and together
// weigh three times what the proxy uses of its heap. What is used again comes back
// from the page cache at the next touch. Only mappings that hold nothing but the
// file's own bytes are dropped.
func dropProgramPages() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	var start, end uintptr // of the mapping under inspection, 0: none of ours
	program, anonymous := []byte(exe), []byte("Anonymous:")
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Bytes() // most of them are of no interest
		switch {
		case bytes.HasSuffix(line, program):
			start, end = 0, 0
			if from, to, ok := programMapping(string(line), exe); ok {
				start, end = from, to
			}
		case start != 0 && bytes.HasPrefix(line, anonymous):
			if n := bytes.TrimSpace(bytes.TrimSuffix(line[len(anonymous):], []byte("kB"))); string(n) == "0" {
				drop(start, end)
			}
			start = 0
		}
	}
}

// programMapping recognizes the first line of a mapping of exe that is not writable:
// "00400000-01a2b000 r-xp 00000000 08:01 1234 /usr/bin/lateen-proxy".
func programMapping(line, exe string) (start, end uintptr, ok bool) {
	f := strings.Fields(line)
	if len(f) != 6 || f[5] != exe || strings.Contains(f[1], "w") {
		return 0, 0, false
	}
	from, to, _ := strings.Cut(f[0], "-")
	a, err1 := strconv.ParseUint(from, 16, 64)
	b, err2 := strconv.ParseUint(to, 16, 64)
	return uintptr(a), uintptr(b), err1 == nil && err2 == nil && b > a
}

func drop(start, end uintptr) {
	// The system call takes an address range that is no Go memory.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
}
