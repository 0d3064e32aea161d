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

// attached are the clients that see a container's output as it comes. The zero attached has none.
type attached struct {
	mu      sync.Mutex
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
	s.to.mu.Lock()
	clients := s.to.clients
	s.to.mu.Unlock()
	for _, c := range clients {
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
		a.mu.Unlock()
		return nil
	}
	a.clients = append(slices.Clone(a.clients), c)
	a.mu.Unlock()
	defer a.remove(c)
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
			w := stdout
			if part.stream == "stderr" {
				w = stderr
			}
			if w == nil {
				continue
			}
			if _, err := w.Write(part.text); err != nil {
				return err
			}
		}
	}
}

func (a *attached) remove(c *client) {
	c.leave()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clients = slices.DeleteFunc(slices.Clone(a.clients), func(other *client) bool { return other == c })
}
