package outside

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoAnswer says that nobody answers at the path, or not in the words of the protocol.
var ErrNoAnswer = errors.New("no answer from outside")

// ask sends a request and reads its answer; the file is the caller's, nil for inside.
// An answer that is a failure is an error with its errno.
func (d *Door) ask(ctx context.Context, request string) (words string, file *os.File, err error) {
	select {
	case d.turns <- struct{}{}:
	case <-ctx.Done():
		return "", nil, ctx.Err()
	}
	defer func() { <-d.turns }()
	c, kept, err := d.connection(ctx)
	if err != nil {
		return "", nil, err
	}
	words, file, err = exchange(ctx, c, request)
	if err != nil && kept && ctx.Err() == nil { // whoever answered before may have started again
		_ = c.Close()
		if c, err = d.connect(ctx); err != nil {
			return "", nil, err
		}
		words, file, err = exchange(ctx, c, request)
	}
	if err != nil {
		_ = c.Close()
		if ctx.Err() != nil {
			return "", nil, ctx.Err()
		}
		return "", nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	d.keep(c)
	return judge(request, words, file)
}

// connection takes a kept connection, or makes one.
func (d *Door) connection(ctx context.Context) (c *net.UnixConn, kept bool, err error) {
	d.mu.Lock()
	if n := len(d.idle); n > 0 {
		c, d.idle = d.idle[n-1], d.idle[:n-1]
	}
	d.mu.Unlock()
	if c != nil {
		return c, true, nil
	}
	c, err = d.connect(ctx)
	return c, false, err
}

func (d *Door) connect(ctx context.Context) (*net.UnixConn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unixpacket", d.path)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	return c.(*net.UnixConn), nil
}

func (d *Door) keep(c *net.UnixConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.idle) >= maxIdle {
		_ = c.Close()
		return
	}
	d.idle = append(d.idle, c)
}

// exchange is one request and its answer on a connection, which is of no use any more
// after an error.
func exchange(ctx context.Context, c *net.UnixConn, request string) (string, *os.File, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	if _, err := c.Write([]byte(request)); err != nil {
		stop()
		return "", nil, err
	}
	words, file, err := receive(c)
	if !stop() && err == nil { // the deadline may come at any time: this connection is not kept
		if file != nil {
			_ = file.Close()
		}
		return "", nil, ctx.Err()
	}
	return words, file, err
}

// receive reads one packet and what came with it.
func receive(c *net.UnixConn) (string, *os.File, error) {
	packet, rights := make([]byte, maxAnswer), make([]byte, unix.CmsgSpace(4*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(packet, rights)
	if err != nil {
		return "", nil, err
	}
	file := attached(rights[:oobn])
	switch {
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("the answer is too long")
	case n == 0:
		err = errors.New("the connection was closed")
	default:
		return string(packet[:n]), file, nil
	}
	if file != nil {
		_ = file.Close()
	}
	return "", nil, err
}

// attached is the first descriptor that came along; others are closed.
func attached(rights []byte) *os.File {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil
	}
	var file *os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if file != nil {
				_ = unix.Close(fd)
				continue
			}
			file = os.NewFile(uintptr(fd), "outside")
		}
	}
	return file
}

// judge reads an answer.
func judge(request, answer string, file *os.File) (string, *os.File, error) {
	verb, words, _ := strings.Cut(answer, " ")
	switch {
	case verb == "ok" && (file != nil) == (request != "inside"):
		return words, file, nil
	case file != nil:
		_ = file.Close()
	}
	number, text, _ := strings.Cut(words, " ")
	errno, err := strconv.ParseUint(number, 10, 12)
	if verb != "err" || err != nil || errno == 0 {
		return "", nil, fmt.Errorf("%w: it says %.80q", ErrNoAnswer, answer)
	}
	return "", nil, fmt.Errorf("%s: %.200s: %w", request, text, syscall.Errno(errno))
}
