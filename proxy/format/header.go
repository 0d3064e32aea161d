package format

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
)

func errParam(got, want string) error { return fmt.Errorf("parameter %q: want %s", got, want) }

// names reads "X?Y": a header and the one to take where it is missing.
func names(params string) (first, second string, err error) {
	first, second, alternative := strings.Cut(strings.ToLower(params), "?")
	if first == "" || alternative && (second == "" || strings.Contains(second, "?")) {
		return "", "", errParam(params, "a header, or two with a question mark between them")
	}
	return first, second, nil
}

// headerOperation appends the first value of one of two headers.
func headerOperation(params string, get func(r Record, name string) ([]byte, bool)) (*operation, error) {
	first, second, err := names(params)
	if err != nil {
		return nil, err
	}
	return &operation{write: func(dst []byte, r Record) ([]byte, bool) {
		v, ok := get(r, first)
		if !ok && second != "" {
			v, ok = get(r, second)
		}
		return append(dst, v...), ok
	}}, nil
}

func requestHeader(r Record, name string) ([]byte, bool) {
	if r.Request == nil {
		return nil, false
	}
	return r.Request.First(name)
}

func buildRequestHeader(params string) (*operation, error) {
	return headerOperation(params, requestHeader)
}

func buildResponseHeader(params string) (*operation, error) {
	return headerOperation(params, func(r Record, name string) ([]byte, bool) {
		if r.Response == nil {
			return nil, false
		}
		return r.Response.First(name)
	})
}

func buildTrailer(params string) (*operation, error) {
	return headerOperation(params, func(r Record, name string) ([]byte, bool) {
		if r.ResponseTrailers == nil {
			return nil, false
		}
		return r.ResponseTrailers.First(name)
	})
}

func buildWithoutQuery(params string) (*operation, error) {
	return headerOperation(params, func(r Record, name string) ([]byte, bool) {
		v, ok := requestHeader(r, name)
		v, _, _ = bytes.Cut(v, []byte("?"))
		return v, ok
	})
}

// buildPath reads PATH(query:which): WQ or NQ (with or without the query), then
// ORIG (x-envoy-original-path), PATH, or ORIG_OR_PATH.
func buildPath(params string) (*operation, error) {
	query, which, _ := strings.Cut(params, ":")
	header := map[string]string{"": "x-envoy-original-path?:path", "ORIG_OR_PATH": "x-envoy-original-path?:path", "ORIG": "x-envoy-original-path", "PATH": ":path"}[which]
	switch {
	case header == "":
		return nil, errParam(which, "ORIG, PATH or ORIG_OR_PATH")
	case query == "" || query == "WQ":
		return buildRequestHeader(header)
	case query == "NQ":
		return buildWithoutQuery(header)
	}
	return nil, errParam(query, "WQ or NQ")
}

// buildQueryParam is the first value of a query parameter, decoded where it can be.
func buildQueryParam(name string) (*operation, error) {
	return &operation{write: func(dst []byte, r Record) ([]byte, bool) {
		value, ok := match.Parameter(requestQuery(r), name)
		return appendDecoded(dst, value), ok
	}}, nil
}

// buildQueryParams is the query as it was sent. DECODED is refused: what Envoy prints
// for it is neither decoded nor as it was.
func buildQueryParams(params string) (*operation, error) {
	if params != "" && params != "ORIG" {
		return nil, errParam(params, "ORIG")
	}
	return &operation{write: func(dst []byte, r Record) ([]byte, bool) {
		query := requestQuery(r)
		return append(dst, query...), len(query) > 0
	}}, nil
}

func requestQuery(r Record) []byte {
	if r.Request == nil {
		return nil
	}
	_, query := match.SplitPath(r.Request.Path)
	return query
}

// headersBytes counts names and values, as Envoy does.
func headersBytes(h *http.Headers) (n int64) {
	if h == nil {
		return 0
	}
	for _, f := range h.Fields {
		n += int64(len(f.Name) + len(f.Value))
	}
	return n
}

func requestHeadersBytes(r Record) int64 {
	if r.Request == nil {
		return 0
	}
	n := headersBytes(&r.Request.Headers)
	for _, pseudo := range []struct {
		name  int
		value []byte
	}{{len(":method"), r.Request.Method}, {len(":scheme"), r.Request.Scheme}, {len(":authority"), r.Request.Authority}, {len(":path"), r.Request.Path}} {
		if pseudo.value != nil {
			n += int64(pseudo.name + len(pseudo.value))
		}
	}
	return n
}

func responseHeadersBytes(r Record) int64 {
	if r.Response == nil || r.Response.Status == 0 {
		return 0
	}
	return headersBytes(&r.Response.Headers) + int64(len(":status")+len("200"))
}

// appendDecoded appends v and undoes percent encoding; what is not valid stays as it is.
func appendDecoded(dst, v []byte) []byte {
	if bytes.IndexByte(v, '%') < 0 {
		return append(dst, v...)
	}
	for i := 0; i < len(v); i++ {
		if v[i] == '%' && i+2 < len(v) {
			if decoded, err := url.PathUnescape(string(v[i : i+3])); err == nil {
				dst = append(dst, decoded...)
				i += 2
				continue
			}
		}
		dst = append(dst, v[i])
	}
	return dst
}
