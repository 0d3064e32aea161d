package authz

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// decisionKey is where the log of a proxy finds the id of the decision, in the metadata of its filter.
const decisionKey = "decision_id"

// answerOf is the CheckResponse of what a policy says: true, false, or an object with "allowed".
func answerOf(result any, id string) (*authv3.CheckResponse, error) {
	switch r := result.(type) {
	case bool:
		return reader{}.answer(r, id)
	case map[string]any:
		allowed, ok := r["allowed"].(bool)
		if !ok {
			return nil, fmt.Errorf(`the decision's "allowed" is %s, not true or false`, kindOf(r["allowed"]))
		}
		return reader{of: r}.answer(allowed, id)
	}
	return nil, fmt.Errorf("the decision is %s, neither true or false nor an object", kindOf(result))
}

// A reader takes the parts of a decision; it keeps the first mistake.
type reader struct {
	of  map[string]any
	err error
}

func (r reader) answer(allowed bool, id string) (*authv3.CheckResponse, error) {
	a := &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.OK)}, DynamicMetadata: r.metadata(id)}
	if allowed {
		a.HttpResponse = &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers:                 continued(r.headers("headers")),
			HeadersToRemove:         r.names("request_headers_to_remove"),
			ResponseHeadersToAdd:    r.headers("response_headers_to_add"),
			QueryParametersToSet:    r.parameters("query_parameters_to_set"),
			QueryParametersToRemove: r.names("query_parameters_to_remove"),
		}}
		return a, r.err
	}
	a.Status.Code = int32(codes.PermissionDenied)
	a.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: r.status()}, Headers: r.headers("headers"), Body: r.text("body"),
	}}
	return a, r.err
}

// badRequest refuses what no policy can be asked about.
func badRequest(err error) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.InvalidArgument), Message: err.Error()},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode_BadRequest},
		}},
	}
}

func (r *reader) wrong(field, want string, got any) {
	if r.err == nil {
		r.err = fmt.Errorf("the decision's %q has %s in place of %s", field, kindOf(got), want)
	}
}

// headers reads an object of names and values, or a list of such objects; a name may have several values.
func (r *reader) headers(field string) (all []*corev3.HeaderValueOption) {
	objects, isList := r.of[field].([]any)
	if v, ok := r.of[field]; ok && !isList {
		objects = []any{v}
	}
	for _, o := range objects {
		for _, pair := range r.pairs(field, o) {
			all = append(all, &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: pair[0], Value: pair[1]}})
		}
	}
	return all
}

// continued has the further values of a header that goes to the upstream added to its first, which replaces
// what the client has sent. Of headers of the request Envoy reads append, not append_action.
func continued(headers []*corev3.HeaderValueOption) []*corev3.HeaderValueOption {
	seen := map[string]bool{}
	for _, h := range headers {
		if seen[h.GetHeader().GetKey()] {
			h.Append = wrapperspb.Bool(true)
		}
		seen[h.GetHeader().GetKey()] = true
	}
	return headers
}

func (r *reader) parameters(field string) (all []*corev3.QueryParameter) {
	if v, ok := r.of[field]; ok {
		for _, pair := range r.pairs(field, v) {
			all = append(all, &corev3.QueryParameter{Key: pair[0], Value: pair[1]})
		}
	}
	return all
}

// pairs reads an object whose values are texts or lists of texts, in the order of its names.
func (r *reader) pairs(field string, v any) (all [][2]string) {
	object, ok := v.(map[string]any)
	if !ok {
		r.wrong(field, "an object", v)
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		values, isList := object[name].([]any)
		if !isList {
			values = []any{object[name]}
		}
		for _, value := range values {
			text, ok := value.(string)
			if !ok {
				r.wrong(field, "a text", value)
			}
			all = append(all, [2]string{name, text})
		}
	}
	return all
}

func (r *reader) names(field string) (all []string) {
	v, ok := r.of[field]
	if !ok {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		r.wrong(field, "a list", v)
	}
	for _, name := range list {
		text, ok := name.(string)
		if !ok {
			r.wrong(field, "a text", name)
		}
		all = append(all, text)
	}
	return all
}

func (r *reader) text(field string) string {
	v, ok := r.of[field]
	text, isText := v.(string)
	if ok && !isText {
		r.wrong(field, "a text", v)
	}
	return text
}

// status is http_status, 403 without it.
func (r *reader) status() typev3.StatusCode {
	v, ok := r.of["http_status"]
	if !ok {
		return typev3.StatusCode_Forbidden
	}
	number, _ := v.(json.Number)
	code, err := number.Int64()
	if _, known := typev3.StatusCode_name[int32(code)]; err != nil || code < 100 || !known {
		r.wrong("http_status", "a status", v)
	}
	return typev3.StatusCode(code)
}

// metadata is dynamic_metadata and the decision's id.
func (r *reader) metadata(id string) *structpb.Struct {
	object, ok := r.of["dynamic_metadata"].(map[string]any)
	if v, there := r.of["dynamic_metadata"]; there && !ok {
		r.wrong("dynamic_metadata", "an object", v)
	}
	object = maps.Clone(object)
	if object == nil {
		object = map[string]any{}
	}
	object[decisionKey] = id
	s, err := structpb.NewStruct(object)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("the decision's \"dynamic_metadata\": %w", err)
	}
	return s
}

// kindOf names the kind of a value, not the value: errors are logged.
func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "nothing"
	case bool:
		return "true or false"
	case string:
		return "a text"
	case json.Number:
		return "a number"
	case []any:
		return "a list"
	}
	return "an object"
}
