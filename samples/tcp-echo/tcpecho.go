// Package tcpecho is the tcp-echo server of Istio's examples: it answers every line
// with the same line, a word and a blank before it, so that one sees which version
// answered.
//
//	$ echo world | nc tcp-echo 9000
//	hello world
package tcpecho

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// maxLine bounds a line, maxConnections how many clients are served at once.
const (
	maxLine        = 64 << 10
	maxConnections = 1000
)

// Serve answers the clients of a listener until ctx ends, and closes it. It writes
// a line to log for each line that comes, as the original's container log shows.
func Serve(ctx context.Context, ln net.Listener, prefix string, log io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	say := &lines{to: log}
	say.printf("listening on %s, prefix: %s\n", ln.Addr(), prefix)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	free := make(chan struct{}, maxConnections)
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		select {
		case free <- struct{}{}:
		default:
			_ = conn.Close() // as many as are served at once
			continue
		}
		clients.Go(func() {
			defer func() { <-free }()
			echo(ctx, conn, prefix, say)
		})
	}
}

// echo serves one client until it or ctx ends, or a line is too long.
func echo(ctx context.Context, conn net.Conn, prefix string, say *lines) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	in := bufio.NewReaderSize(conn, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		say.printf("request: %s", line)
		answer := append([]byte(prefix+" "), line...)
		say.printf("response: %s", answer)
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// lines keeps the lines of several clients apart.
type lines struct {
	mu sync.Mutex
	to io.Writer
}

func (l *lines) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = fmt.Fprintf(l.to, format, args...)
}
