package documents_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
	"github.com/conveyor-go/conveyor/store/memory"
)

// served are resources as servers of Conveyor CI give them out: the older ones write texts as metadata, the newer ones
// any JSON.
var served = map[string]string{
	"older": `{"id":"5f9c6c58-0000-4000-8000-000000000001","name":"build-app-1","pipeline":"docker-pipeline","resource":"docker-resource",` +
		`"metadata":{"version":"2","driverresults.git-cloner":"{\"success\":true,\"message\":\"<ok> & done\",\"data\":null,\"driver\":\"git-cloner\"}"},` +
		`"spec":{"repository":"r"}}`,
	"newer": `{"id":"5f9c6c58-0000-4000-8000-000000000001","name":"build-app-1","pipeline":"docker-pipeline","resource":"docker-resource",` +
		`"metadata":{"version":"2","current_pipeline_step":"2","current_pipeline_run":"7a1f","current_pipeline_event":"update",` +
		`"driverresults":{"git-cloner":{"success":true,"message":"<ok> & done","data":{"size":12345678901234567890,"ratio":1.0}},"tester":null},` +
		`"deleting":true,"deletion_runid":"","deletion_failed":false,"attempts":3,"tags":["a",{"b":[]}],"nothing":null},` +
		`"spec":{"repository":"r"}}`,
}

// whole returns the metadata of a document as it stands there.
func whole(t *testing.T, doc string) map[string]json.RawMessage {
	t.Helper()
	var d struct{ Metadata map[string]json.RawMessage }
	require.NoError(t, json.Unmarshal([]byte(doc), &d))
	return d.Metadata
}

// typed is a resource of a program, whose JSON has only texts as metadata.
type typed struct {
	conveyor.Meta
	Spec struct {
		Repository string `json:"repository"`
	} `json:"spec"`
}

func TestMetadataOfConveyorCIIsKeptWhole(t *testing.T) {
	for name, doc := range served {
		for kind, open := range map[string]func(t *testing.T) store.Store{
			"memory": func(*testing.T) store.Store { return memory.New() },
			"file": func(t *testing.T) store.Store {
				st, err := file.Open(t.Context(), filepath.Join(t.TempDir(), "conveyor.db"), file.Options{})
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, st.Close()) })
				return st
			},
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				st := open(t)
				synctest.Test(t, func(t *testing.T) {
					want := whole(t, doc)
					same := func(o *conveyor.Object, what string) {
						t.Helper()
						text, err := json.Marshal(o)
						require.NoError(t, err, what)
						require.Equal(t, jsonSorted(t, string(rig.JSON(want))), jsonSorted(t, string(rig.JSON(whole(t, string(text))))), what)
						require.Equal(t, "2", o.Metadata["version"], what)
						if name == "newer" {
							require.Equal(t, "true", string(o.MetadataJSON["deleting"]), what)
							require.Contains(t, string(o.MetadataJSON["driverresults"]), "12345678901234567890", what)
							require.Contains(t, string(o.MetadataJSON["driverresults"]), "1.0", what)
						} else {
							require.Nil(t, o.MetadataJSON, what)
						}
					}
					o, err := parseResource(doc)
					require.NoError(t, err)
					same(o, "parsed")
					var read conveyor.Object
					require.NoError(t, json.Unmarshal([]byte(doc), &read))
					same(&read, "read by encoding/json")
					back, err := parseResource(string(rig.JSON(o)))
					require.NoError(t, err)
					same(back, "written and parsed")

					e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
					seen := 0
					e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
						seen++
						same(req.Resource, "in a request")
						var own typed
						require.NoError(t, req.Resource.Decode(&own))
						require.Equal(t, req.Resource.MetadataJSON, own.MetadataJSON)
						require.Equal(t, "r", own.Spec.Repository)
						for _, value := range req.Resource.MetadataJSON {
							value[0] = 'x' // the driver owns it
						}
						return conveyor.Done(), nil
					}))
					p := rig.PipelineOf("d")
					p.Name, p.Resource = "docker-pipeline", "docker-resource"
					e.Save(p)
					o.Version = 0
					run := e.Finish(o)
					require.NoError(t, run.Err())
					same(o, "after Apply")
					same(e.MustGet(o), "on record")
					again := e.MustGet(o)
					require.Equal(t, run.ID, e.MustApply(again).ID)
					require.Equal(t, int64(1), again.Version, "nothing has changed")

					var own typed
					require.NoError(t, e.MustGet(o).Decode(&own))
					require.Equal(t, run.ID, e.MustApply(&own).ID)
					require.Equal(t, int64(1), own.Version, "a resource of a program's own type has them too")
					same(e.MustGet(o), "after Apply of it")

					e = e.Reborn(conveyor.Options{}).MustStart()
					same(e.MustGet(o), "after a restart")
					for revision, err := range e.Revisions(t.Context(), o.Key()) {
						require.NoError(t, err)
						same(revision, "a revision")
					}
					changed := e.MustGet(o)
					changed.MetadataJSON = map[string]json.RawMessage{"deleting": json.RawMessage(" false ")}
					e.MustApply(changed)
					require.Equal(t, int64(2), changed.Version)
					require.Equal(t, "false", string(e.MustGet(o).MetadataJSON["deleting"]))
					require.Equal(t, int64(1), changed.Generation, "metadata alone makes no generation")
					require.Equal(t, 1, seen)
					e.Stop()
				})
			})
		}
	}
}

func TestMetadataThatCannotBeKeptIsRefused(t *testing.T) {
	e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Spec: 100}})
	for _, c := range []struct {
		name  string
		texts map[string]string
		other map[string]json.RawMessage
		field string
		is    error
	}{
		{"in both", map[string]string{"a": "1"}, map[string]json.RawMessage{"a": []byte("1")}, "metadata.a", conveyor.ErrInvalid},
		{"a text", nil, map[string]json.RawMessage{"a": []byte(` "1"`)}, "metadata.a", conveyor.ErrInvalid},
		{"nothing", nil, map[string]json.RawMessage{"a": nil}, "metadata.a", conveyor.ErrInvalid},
		{"no JSON", nil, map[string]json.RawMessage{"a.b": []byte("{")}, `metadata."a.b"`, conveyor.ErrInvalid},
		{"a field twice", nil, map[string]json.RawMessage{"a": []byte(`{"x":1,"x":2}`)}, "metadata.a.x", conveyor.ErrInvalid},
		{"a name that is no UTF-8", nil, map[string]json.RawMessage{"\xff": []byte(`1`)}, "metadata", conveyor.ErrInvalid},
		{"too much", map[string]string{"a": "1"}, map[string]json.RawMessage{"b": []byte("[" + strings.Repeat("1,", 49) + "1]")}, "metadata", conveyor.ErrTooLarge},
		{"too deep", nil, map[string]json.RawMessage{"b": []byte(strings.Repeat("[", 31) + strings.Repeat("]", 31))}, "metadata.b" + strings.Repeat("[0]", 30), conveyor.ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := rig.Loose("r", "a", nil)
			o.Metadata, o.MetadataJSON = c.texts, c.other
			_, err := e.Apply(t.Context(), o)
			require.ErrorIs(t, err, c.is)
			var field *conveyor.FieldError
			require.ErrorAs(t, err, &field)
			require.Equal(t, c.field, field.Field)
		})
	}
	for _, doc := range []string{
		`{"name":"a","resource":"r","metadata":{"a":"\ud800"}}`, `{"name":"a","resource":"r","metadata":{"a":{"b":1,"b":2}}}`,
		`{"name":"a","resource":"r","metadata":[]}`, `{"name":"a","resource":"r","metadata":{"a":1,"a":2}}`,
	} {
		_, err := parseResource(doc)
		require.ErrorIs(t, err, conveyor.ErrInvalid, doc)
	}
}

func TestAnObjectThatIsNotValidIsWrittenOrRefused(t *testing.T) {
	o := &conveyor.Object{Meta: conveyor.Meta{Metadata: map[string]string{"a": "b"}, MetadataJSON: map[string]json.RawMessage{"c": []byte("{")}}}
	_, err := json.Marshal(o)
	require.Error(t, err)
	o.MetadataJSON["c"] = nil
	text, err := json.Marshal(o)
	require.NoError(t, err)
	require.Equal(t, map[string]json.RawMessage{"a": []byte(`"b"`), "c": []byte("null")}, whole(t, string(text)))
	require.Len(t, o.MetadataJSON, 1, "the object is as it was")
	require.ErrorIs(t, (&conveyor.Object{Meta: o.Meta, Spec: []byte("{")}).Decode(new(typed)), conveyor.ErrInvalid)
	var back conveyor.Object
	require.Error(t, json.Unmarshal([]byte(`{"metadata":[]}`), &back))
	require.NoError(t, json.Unmarshal([]byte(`null`), &back))
	require.NoError(t, json.Unmarshal(text, &back))
	require.NoError(t, json.Unmarshal([]byte(`{"name":"x"}`), &back))
	require.Equal(t, "b", back.Metadata["a"], "what is not in the document stays, as in any struct")
}

func TestTheExamplesOfConveyorCIComeBack(t *testing.T) {
	text, err := os.ReadFile("testdata/build-app-1.json")
	require.NoError(t, err)
	o, err := parseResource(string(text))
	require.NoError(t, err)
	require.Equal(t, jsonSorted(t, string(text)), jsonSorted(t, string(rig.JSON(o))))
}
