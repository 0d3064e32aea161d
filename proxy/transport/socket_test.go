package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLargeWrite: a write that the kernel takes in many pieces arrives whole and in order.
func TestLargeWrite(t *testing.T) {
	sent := make([]byte, 8<<20)
	for i, r := 0, rand.New(rand.NewPCG(1, 2)); i < len(sent); i++ {
		sent[i] = byte(r.Uint32())
	}
	for name, write := range map[string]func(Conn) (int64, error){
		"Write": func(c Conn) (int64, error) { n, err := c.Write(sent); return int64(n), err },
		"WriteBuffers": func(c Conn) (int64, error) {
			return c.WriteBuffers(&net.Buffers{nil, sent[:1], {}, sent[1:70_000], sent[70_000 : 4<<20], nil, sent[4<<20 : 5<<20], sent[5<<20:]})
		},
	} {
		t.Run(name, func(t *testing.T) {
			pairs(t, func(t *testing.T, client, server Conn) {
				wrote := make(chan error, 1)
				go func() {
					n, err := write(client)
					if n != int64(len(sent)) && err == nil {
						err = io.ErrShortWrite
					}
					wrote <- errors.Join(err, client.CloseWrite())
				}()
				got, err := io.ReadAll(io.LimitReader(server, int64(len(sent))))
				if err != nil || !bytes.Equal(got, sent) {
					t.Errorf("%d of %d bytes came, or others: %v", len(got), len(sent), err)
				}
				if n, err := server.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
					t.Errorf("after the end: %d, %v", n, err)
				}
				if err := <-wrote; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestNextWriter: who writes next, because the answer to what was written has come, takes
// nothing from a writer who has not returned yet, and loses nothing.
func TestNextWriter(t *testing.T) {
	const rounds = 20_000
	socketPairs(t, func(t *testing.T, client, server Conn) {
		go func() { _, _ = io.Copy(server, server) }()
		var writers sync.WaitGroup
		defer writers.Wait()
		for i := range rounds {
			sent := binary.BigEndian.AppendUint32(nil, uint32(i))
			writers.Go(func() {
				if i%2 == 0 {
					_, _ = client.Write(sent)
				} else {
					_, _ = client.WriteBuffers(&net.Buffers{sent[:1], sent[1:]})
				}
			})
			got := make([]byte, len(sent))
			if err := client.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("round %d: %x came back of %x: %v", i, got, sent, err)
			}
		}
	})
}

// TestBlockedCalls: deadlines and Close end reads and writes that wait.
func TestBlockedCalls(t *testing.T) {
	block := map[string]func(Conn) error{
		"read": func(c Conn) error { _, err := c.Read(make([]byte, 1)); return err },
		"write": func(c Conn) error {
			for {
				if _, err := c.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
		},
	}
	for name, call := range block {
		t.Run(name, func(t *testing.T) {
			pairs(t, func(t *testing.T, client, _ Conn) {
				soon := time.Now().Add(10 * time.Millisecond)
				if err := errors.Join(client.SetReadDeadline(soon), client.SetWriteDeadline(soon)); err != nil {
					t.Fatal(err)
				}
				if err := call(client); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("past the deadline: %v", err)
				}
			})
			socketPairs(t, func(t *testing.T, client, _ Conn) {
				ended := make(chan error, 1)
				go func() { ended <- call(client) }()
				if err := client.Reset(); err != nil {
					t.Fatal(err)
				}
				if err := <-ended; err == nil {
					t.Error("no error after Close")
				}
			})
		})
	}
}

// TestResetIsTold: what the kernel says of a peer's reset is an error that says so.
func TestResetIsTold(t *testing.T) {
	client, server := sockets(t)
	a, b := NewConn(client), NewConn(server)
	if err := b.Reset(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("write: %v", err)
	}
}
