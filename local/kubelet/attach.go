package kubelet

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"
)

// slowest is how long a client that reads nothing may hold a container up; then it loses what
// the container prints.
const slowest = 10 * time.Second

// maxEarly bounds what is kept for the first client.
const maxEarly = 64 << 10

// attached are the clients that see a container's output as it comes. The zero attached has none.
type attached struct {
	// early keeps the first output for the first client: `kubectl run -i` attaches to a program
	// that began before. Set before the container runs.
	early bool

	mu      sync.Mutex
	kept    []chunk
	size    int
	clients []*client
	over    bool
}

// A client is one of them.
type client struct {
	chunks chan chunk
	left   chan struct{} // closed when it reads no longer
	once   sync.Once
}

type chunk struct {
	stream string
	text   []byte
}

func (c *client) leave() { c.once.Do(func() { close(c.left) }) }

// to is where output of a stream goes. It takes everything, whatever becomes of clients.
func (a *attached) to(stream string) io.Writer { return streamOf{a, stream} }

type streamOf struct {
	to   *attached
	name string
}

func (s streamOf) Write(p []byte) (int, error) {
	for _, c := range s.to.keep(s.name, p) {
		timer := time.NewTimer(slowest)
		select {
		case c.chunks <- chunk{s.name, slices.Clone(p)}:
		case <-c.left:
		case <-timer.C:
			c.leave()
		}
		timer.Stop()
	}
	return len(p), nil
}

// keep keeps early output, and returns the clients that see it now.
func (a *attached) keep(stream string, p []byte) []*client {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.early && a.size < maxEarly {
		p = p[:min(len(p), maxEarly-a.size)]
		a.kept, a.size = append(a.kept, chunk{stream, slices.Clone(p)}), a.size+len(p)
	}
	return a.clients
}

// waits reports whether there is output that no client has seen.
func (a *attached) waits() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.early && len(a.kept) > 0
}

// end tells clients that no more comes.
func (a *attached) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	for _, c := range a.clients {
		close(c.chunks)
	}
	a.clients = nil
}

// follow copies output until the container ends, the context does, or a writer fails.
// A nil writer leaves its stream out.
func (a *attached) follow(ctx context.Context, stdout, stderr io.Writer) error {
	c := &client{chunks: make(chan chunk, 16), left: make(chan struct{})}
	a.mu.Lock()
	if a.over {
		close(c.chunks)
	} else {
		a.clients = append(slices.Clone(a.clients), c)
	}
	kept := a.kept
	a.early, a.kept = false, nil
	a.mu.Unlock()
	defer a.remove(c)
	to := map[string]io.Writer{"stdout": stdout, "stderr": stderr}
	for _, part := range kept {
		if err := part.write(to); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.left:
			return nil
		case part, more := <-c.chunks:
			if !more {
				return nil
			}
			if err := part.write(to); err != nil {
				return err
			}
		}
	}
}

// write writes to the stream's writer, if there is one.
func (c chunk) write(to map[string]io.Writer) error {
	w := to[c.stream]
	if w == nil {
		return nil
	}
	_, err := w.Write(c.text)
	return err
}

func (a *attached) remove(c *client) {
	c.leave()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clients = slices.DeleteFunc(slices.Clone(a.clients), func(other *client) bool { return other == c })
}
