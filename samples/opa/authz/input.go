package authz

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"strconv"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

// partialHeader is Envoy's word on whether it tells the whole body.
const partialHeader = "x-envoy-auth-partial-body"

// An unreadableError is what a client has sent and no policy can be asked about. It is refused,
// even by proxies that let pass what nobody has decided.
type unreadableError struct{ err error }

func (e *unreadableError) Error() string { return e.err.Error() }
func (e *unreadableError) Unwrap() error { return e.err }

// inputOf is the document `input` of a question: attributes as protojson has them, the path and
// the query in parts, and the body where its kind is known. With an error comes what could be read.
func inputOf(q *authv3.CheckRequest, withBody bool) (map[string]any, error) {
	text, err := protojson.Marshal(q)
	if err != nil {
		return nil, &unreadableError{err}
	}
	input := map[string]any{}
	if err := decode(text, &input); err != nil {
		return nil, err
	}
	input["version"] = map[string]any{"ext_authz": "v3", "encoding": "protojson"}
	http := q.GetAttributes().GetRequest().GetHttp()
	path, query, err := parsePath(http.GetPath())
	if err != nil {
		return input, &unreadableError{err}
	}
	input["parsed_path"], input["parsed_query"] = path, query
	if !withBody {
		return input, nil
	}
	body, cut, err := parseBody(http)
	if err != nil {
		return input, &unreadableError{err}
	}
	input["parsed_body"], input["truncated_body"] = body, cut
	return input, nil
}

// decode reads one JSON value; numbers stay as they are written.
func decode(text []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// parsePath takes a path apart: %2F separates, too, and of a query what has no form is left out.
// The path is not normalized, which is the proxy's work.
func parsePath(path string) (parts []any, query map[string]any, err error) {
	path, rawQuery, _ := strings.Cut(path, "?")
	if path, err = url.PathUnescape(path); err != nil {
		return nil, nil, fmt.Errorf("path: %w", err)
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		parts = append(parts, part)
	}
	values, _ := url.ParseQuery(rawQuery)
	return parts, lists(values), nil
}

func lists(values map[string][]string) map[string]any {
	all := make(map[string]any, len(values))
	for name, list := range values {
		all[name] = anys(list)
	}
	return all
}

func anys(list []string) []any {
	all := make([]any, len(list))
	for i, v := range list {
		all[i] = v
	}
	return all
}

// parseBody reads the body of a request by its kind. It is nil for other kinds, without a body, and where
// the proxy tells a part of it only.
func parseBody(http *authv3.AttributeContext_HttpRequest) (body any, cut bool, err error) {
	raw := http.GetRawBody()
	if len(raw) == 0 {
		raw = []byte(http.GetBody())
	}
	length, err := strconv.ParseInt(header(http, "content-length"), 10, 64)
	if cut = err == nil && length > int64(len(raw)) || header(http, partialHeader) == "true"; cut || len(raw) == 0 {
		return nil, cut, nil
	}
	kind, options, err := mime.ParseMediaType(header(http, "content-type"))
	if err != nil {
		return nil, false, nil
	}
	switch kind {
	case "application/json":
		err = decode(raw, &body)
	case "application/x-www-form-urlencoded":
		var values url.Values
		values, err = url.ParseQuery(string(raw))
		body = lists(values)
	case "multipart/form-data":
		body, err = parseForm(raw, options["boundary"])
	}
	if err != nil {
		return nil, false, fmt.Errorf("body of %s: %w", kind, err)
	}
	return body, false, nil
}

// parseForm reads the parts of a form by name; parts of JSON are values.
func parseForm(raw []byte, boundary string) (map[string]any, error) {
	form := map[string]any{}
	parts := multipart.NewReader(bytes.NewReader(raw), boundary)
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return form, nil
		}
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(part)
		if err != nil {
			return nil, err
		}
		var value any = string(text)
		if kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type")); kind == "application/json" {
			if err := decode(text, &value); err != nil {
				return nil, err
			}
		}
		before, _ := form[part.FormName()].([]any)
		form[part.FormName()] = append(before, value)
	}
}

// header finds a header, in either form in which proxies tell them.
func header(http *authv3.AttributeContext_HttpRequest, name string) string {
	if v, ok := http.GetHeaders()[name]; ok {
		return v
	}
	for _, h := range http.GetHeaderMap().GetHeaders() {
		if h.GetKey() == name {
			return h.GetValue() + string(h.GetRawValue())
		}
	}
	return ""
}
