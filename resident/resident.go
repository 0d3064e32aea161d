// Package resident keeps a process small in memory. A start, and other bursts of work, touch far
// more than the process needs afterwards: garbage, and pages of the program that ran once. Keep
// gives both back when a burst is over:
//
//	go resident.Keep(ctx)
//
// Pages of the program stay in the kernel's cache and come back when they are touched again. The
// Kubernetes API, a module of its own, does the same in its package server.
package resident

import (
	"bufio"
	"context"
	"io"
	"iter"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lookEvery is how often the process looks whether a burst of work is over, and burst how
	// much one allocates. One that lasts is not waited for after longest looks.
	lookEvery = 2 * time.Second
	burst     = 8 << 20
	longest   = 15
)

// Keep gives memory back after each burst of work until ctx ends. It is called once in a process,
// when that begins: a start is a burst.
func Keep(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for last, settled, looks := uint64(0), uint64(0), 0; ; looks++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := allocated()
		quiet := now-last < burst/4
		last = now
		if (now-settled > burst || settled == 0) && (quiet || looks >= longest) {
			settle()
			settled, looks = now, 0
		}
	}
}

// allocated returns how many bytes were allocated since the process began.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// settle gives back garbage, and pages of the program.
func settle() {
	debug.FreeOSMemory()
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return // another kernel: nothing is lost but memory
	}
	defer maps.Close()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for m := range mappings(maps) {
		// Without a page of its own, all of a mapping can be read again from the file.
		if m.file == program && !strings.Contains(m.mode, "w") && m.anonymous == "0" {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
		}
	}
}

// A mapping is what /proc/PID/smaps says of one.
type mapping struct {
	start, end uintptr
	mode, file string
	anonymous  string // kilobytes that differ from the file
}

// mappings reads smaps: a line with the range, then lines of "Name: value".
func mappings(smaps io.Reader) iter.Seq[mapping] {
	return func(yield func(mapping) bool) {
		var m mapping
		for lines := bufio.NewScanner(smaps); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			switch {
			case len(fields) == 6 && !strings.HasSuffix(fields[0], ":"):
				from, to, _ := strings.Cut(fields[0], "-")
				start, _ := strconv.ParseUint(from, 16, 64)
				end, _ := strconv.ParseUint(to, 16, 64)
				m = mapping{start: uintptr(start), end: uintptr(end), mode: fields[1], file: fields[5]}
			case len(fields) == 3 && fields[0] == "Anonymous:" && m.end > m.start:
				m.anonymous = fields[1]
				if !yield(m) {
					return
				}
				m = mapping{} // a mapping without a name has no file to compare
			}
		}
	}
}
