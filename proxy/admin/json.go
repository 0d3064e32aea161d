package admin

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"

	originaldstpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// types resolves the type URLs in configuration. A type that is not linked in prints
// as its URL alone: the message of a resource that asks for what the proxy does not
// have is refused, but its text is still shown as the last that was refused.
type types struct{}

func (types) FindMessageByName(n protoreflect.FullName) (protoreflect.MessageType, error) {
	return protoregistry.GlobalTypes.FindMessageByName(n)
}

func (types) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	if t, err := protoregistry.GlobalTypes.FindMessageByURL(url); err == nil {
		return t, nil
	}
	return (&originaldstpb.OriginalDst{}).ProtoReflect().Type(), nil // any message without fields
}

func (types) FindExtensionByName(n protoreflect.FullName) (protoreflect.ExtensionType, error) {
	return protoregistry.GlobalTypes.FindExtensionByName(n)
}

func (types) FindExtensionByNumber(n protoreflect.FullName, f protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	return protoregistry.GlobalTypes.FindExtensionByNumber(n, f)
}

// encode is m in Envoy's form: proto names, fields in the order of the schema, and
// nothing that is secret. m itself is shared and stays as it is.
func encode(m proto.Message, unset bool) ([]byte, error) {
	m = proto.Clone(m)
	redact(m.ProtoReflect(), false)
	o := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: unset, Resolver: types{}}
	return o.Marshal(m)
}

// writeProto answers with m, indented by one blank as Envoy does.
func (s *Server) writeProto(w http.ResponseWriter, m proto.Message, unset bool) {
	b, err := encode(m, unset)
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error()+"\n")
		return
	}
	w.Header().Set("content-type", "application/json")
	s.send(indent(w, b))
}

func indent(w io.Writer, b []byte) error {
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", " "); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err := out.WriteTo(w)
	return err
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("content-type", "application/json")
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		write(w, err.Error())
	}
}
