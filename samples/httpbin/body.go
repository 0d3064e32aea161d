package httpbin

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxBytes bounds bodies that are asked for by size, maxLines those by lines.
const (
	maxBytes = 100 << 10
	maxLines = 100
)

const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><circle cx="32" cy="32" r="30" fill="#268"/></svg>
`

// bodies are the paths that have something to show.
func (a application) bodies(mux *http.ServeMux) {
	page := func(path, kind, text string) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { write(w, kind, []byte(text)) })
	}
	page("/{$}", "text/html; charset=utf-8", "<!DOCTYPE html>\n<title>httpbin</title>\n<h1>httpbin</h1>\n<p>Try <a href=\"/headers\">/headers</a>.</p>\n")
	page("/html", "text/html; charset=utf-8", "<!DOCTYPE html>\n<title>httpbin</title>\n<h1>httpbin</h1>\n")
	page("/xml", "application/xml", "<?xml version='1.0' encoding='us-ascii'?>\n<slideshow title=\"Sample\"><slide><title>httpbin</title></slide></slideshow>\n")
	page("/robots.txt", "text/plain", "User-agent: *\nDisallow: /deny\n")
	page("/deny", "text/plain", "You should not be here.\n")
	page("/image/svg", "image/svg+xml", svg)
	mux.HandleFunc("GET /json", func(w http.ResponseWriter, _ *http.Request) {
		a.reply(w, map[string]any{"slideshow": map[string]any{"title": "Sample", "slides": []any{map[string]any{"title": "httpbin", "type": "all"}}}})
	})
	mux.HandleFunc("GET /uuid", func(w http.ResponseWriter, _ *http.Request) { a.reply(w, map[string]any{"uuid": uuid()}) })
	mux.HandleFunc("GET /base64/{text}", decode)
	mux.HandleFunc("GET /bytes/{n}", func(w http.ResponseWriter, r *http.Request) { sized(w, r, true) })
	mux.HandleFunc("GET /stream-bytes/{n}", func(w http.ResponseWriter, r *http.Request) { sized(w, r, false) })
	mux.HandleFunc("GET /stream/{n}", a.stream)
	mux.HandleFunc("GET /drip", drip)
	mux.HandleFunc("GET /gzip", func(w http.ResponseWriter, r *http.Request) {
		a.compressed(w, r, "gzip", "gzipped", func(to io.Writer) io.WriteCloser { return gzip.NewWriter(to) })
	})
	mux.HandleFunc("GET /deflate", func(w http.ResponseWriter, r *http.Request) {
		a.compressed(w, r, "deflate", "deflated", func(to io.Writer) io.WriteCloser { return zlib.NewWriter(to) })
	})
	mux.HandleFunc("GET /image/png", func(w http.ResponseWriter, _ *http.Request) { picture(w, "png") })
	mux.HandleFunc("GET /image/jpeg", func(w http.ResponseWriter, _ *http.Request) { picture(w, "jpeg") })
	mux.HandleFunc("GET /image", negotiate)
}

func write(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) //nolint:gosec // what is sent back is typed as plain text
}

func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // version 4, random
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func decode(w http.ResponseWriter, r *http.Request) {
	text, err := base64.URLEncoding.DecodeString(r.PathValue("text"))
	if err != nil {
		http.Error(w, "not base64: try /base64/aHR0cGJpbg==", http.StatusBadRequest)
		return
	}
	write(w, "text/plain; charset=utf-8", text)
}

// sized answers with n bytes, whose length it tells or not.
func sized(w http.ResponseWriter, r *http.Request, tell bool) {
	n, ok := number(w, r, "n", maxBytes)
	if !ok {
		return
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + i%26)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if tell {
		w.Header().Set("Content-Length", strconv.Itoa(n))
	}
	for len(b) > 0 {
		chunk := b[:min(len(b), 10<<10)]
		b = b[len(chunk):]
		if _, err := w.Write(chunk); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
	}
}

// stream answers with n lines of JSON, each sent by itself.
func (a application) stream(w http.ResponseWriter, r *http.Request) {
	n, ok := number(w, r, "n", maxLines)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	answer := a.request(r)
	for i := range n {
		answer["id"] = i
		if json.NewEncoder(w).Encode(answer) != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
	}
}

// drip sends numbytes over duration, after delay.
func drip(w http.ResponseWriter, r *http.Request) {
	args := r.URL.Query()
	seconds := func(name, unset string) time.Duration {
		text := args.Get(name)
		if text == "" {
			text = unset
		}
		d, err := duration(text)
		if err != nil {
			d = 0
		}
		return d
	}
	total, err := strconv.Atoi(args.Get("numbytes"))
	if err != nil || total < 1 {
		total = 10
	}
	total = min(total, maxBytes)
	if !pause(r, seconds("delay", "0")) {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(total))
	if code, err := strconv.Atoi(args.Get("code")); err == nil && code >= 200 && code <= 599 {
		w.WriteHeader(code)
	}
	wait := seconds("duration", "2") / time.Duration(total)
	for range total {
		if _, err := io.WriteString(w, "*"); err != nil || !pause(r, wait) {
			return
		}
		_ = http.NewResponseController(w).Flush()
	}
}

func (a application) compressed(w http.ResponseWriter, r *http.Request, encoding, flag string, writer func(io.Writer) io.WriteCloser) {
	answer := map[string]any{flag: true, "headers": a.headers(r), "method": r.Method, "origin": origin(r)}
	text, err := json.MarshalIndent(answer, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var b bytes.Buffer
	packed := writer(&b)
	_, _ = packed.Write(append(text, '\n'))
	_ = packed.Close()
	w.Header().Set("Content-Encoding", encoding)
	write(w, "application/json", b.Bytes())
}

// negotiate sends the kind of image that the client takes.
func negotiate(w http.ResponseWriter, r *http.Request) {
	accept := r.Header.Get("Accept")
	switch {
	case strings.Contains(accept, "image/svg+xml"):
		write(w, "image/svg+xml", []byte(svg))
	case strings.Contains(accept, "image/jpeg"):
		picture(w, "jpeg")
	case accept == "" || strings.Contains(accept, "image/png") || strings.Contains(accept, "image/*") || strings.Contains(accept, "*/*"):
		picture(w, "png")
	default:
		http.Error(w, "here are image/png, image/jpeg and image/svg+xml", http.StatusNotAcceptable)
	}
}

// picture draws a square that gets lighter.
func picture(w http.ResponseWriter, format string) {
	square := image.NewGray(image.Rect(0, 0, 64, 64))
	for i := range square.Pix {
		square.SetGray(i%64, i/64, color.Gray{Y: byte(2 * (i%64 + i/64))})
	}
	var b bytes.Buffer
	if format == "png" {
		_ = png.Encode(&b, square)
	} else {
		_ = jpeg.Encode(&b, square, nil)
	}
	write(w, "image/"+format, b.Bytes())
}
