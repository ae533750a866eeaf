package runlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// source collects what a handler keeps, and has a logger of the program.
type source struct {
	kept []record.LogLine
	host slog.Handler
	made int // calls of Host
}

func (s *source) Keep(line record.LogLine) { s.kept = append(s.kept, line) }

func (s *source) Host() slog.Handler {
	s.made++
	return s.host
}

// newLogger returns a logger whose lines s gets.
func newLogger(s *source, limit int) *slog.Logger {
	h := new(Handler)
	h.Init(s, "build", 3, limit)
	return slog.New(h)
}

func TestAHandlerKeepsLinesWithTheirPlace(t *testing.T) {
	s := new(source)
	log := newLogger(s, 100)
	began := time.Now()
	log.Debug("began")
	log.With("a", 1).WithGroup("g").With("b", "x").Error("ended", "c", []int{1})
	log.WithGroup("g").Info("nothing in it")
	require.Len(t, s.kept, 3)
	for i, line := range s.kept {
		require.Equal(t, "build", line.Step)
		require.Equal(t, 3, line.Attempt)
		require.WithinRange(t, line.Time, began.Round(0), time.Now())
		require.Equal(t, time.UTC, line.Time.Location(), "line %d", i)
	}
	require.Equal(t, []slog.Level{slog.LevelDebug, slog.LevelError, slog.LevelInfo},
		[]slog.Level{s.kept[0].Level, s.kept[1].Level, s.kept[2].Level})
	require.Equal(t, "began", s.kept[0].Message)
	require.Nil(t, s.kept[0].Attrs)
	require.JSONEq(t, `{"a":1,"g":{"b":"x","c":[1]}}`, string(s.kept[1].Attrs))
	require.Nil(t, s.kept[2].Attrs)
}

func TestAHandlerCutsLinesToTheLimit(t *testing.T) {
	for _, c := range []struct {
		name, message string
		attrs         []any
		want          string
		kept          bool // the attributes
	}{
		{"what fits", "12345678901234567890", nil, "12345678901234567890", false},
		{"a long message", strings.Repeat("m", 41), nil, strings.Repeat("m", 40-len(text.CutMark)) + text.CutMark, false},
		{"attributes that fit", "short", []any{"k", "x"}, "short", true},
		{"attributes that do not", "short", []any{"k", strings.Repeat("x", 40)}, "short" + attrsCut, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := new(source)
			newLogger(s, 40).Info(c.message, c.attrs...)
			require.LessOrEqual(t, len(s.kept[0].Message)+len(s.kept[0].Attrs), 40)
			require.Equal(t, c.kept, s.kept[0].Attrs != nil)
			require.Equal(t, c.want, s.kept[0].Message)
		})
	}
}

func TestAHandlerCountsTheBytesOfTheRecord(t *testing.T) {
	s := new(source)
	log := newLogger(s, 60)
	log.Info(strings.Repeat("\x00", 60))
	log.Info("\n\n\n\n\n", "k", strings.Repeat("\x1b", 10))
	log.Info("\n\n\n\n\n", "k", strings.Repeat("\x1b", 7))
	require.Equal(t, strings.Repeat("\x00", 8)+text.CutMark, s.kept[0].Message)
	require.Nil(t, s.kept[1].Attrs)
	require.NotNil(t, s.kept[2].Attrs)
	for _, line := range s.kept {
		require.LessOrEqual(t, text.Size(line.Message)+len(line.Attrs), 60)
	}
}

func TestALineThatNoRecordCanHoldIsMadeToFit(t *testing.T) {
	s := new(source)
	h := new(Handler)
	h.Init(s, "build", 1, 1<<20)
	for _, year := range []int{-1, 10_000, 290_000} {
		require.NoError(t, h.Handle(t.Context(), slog.NewRecord(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC), slog.LevelInfo, "m", 0)))
	}
	for _, level := range []slog.Level{math.MinInt, math.MaxInt} {
		require.NoError(t, h.Handle(t.Context(), slog.NewRecord(time.Now(), level, "m", 0)))
	}
	log := slog.New(h)
	for _, depth := range []int{9_000, 9_995, 9_996, 9_997, 9_998, 9_999, 10_000, 20_000} {
		log.Info("m", "v", json.RawMessage(strings.Repeat("[", depth)+strings.Repeat("]", depth)))
		for range depth / 1_000 {
			log = log.WithGroup("g")
		}
	}
	for i, line := range s.kept {
		var back []record.LogLine
		require.NoError(t, record.Decode(store.Record{Value: record.Encode([]record.LogLine{line})}, &back), "line %d", i)
		require.Equal(t, line, back[0])
	}
}

func TestAHandlerPassesLinesToTheProgramsLogger(t *testing.T) {
	var out bytes.Buffer
	s := &source{host: slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn}).WithAttrs([]slog.Attr{slog.String("run", "r")})}
	log := newLogger(s, 100)
	log.Info("too low")
	log.With("a", 1).Warn("shown")
	log.Warn("again")
	require.Len(t, s.kept, 3, "every level is kept")
	require.NotContains(t, out.String(), "too low")
	require.Contains(t, out.String(), "msg=shown run=r a=1")
	require.Equal(t, 2, s.made, "the program's handler is made once for each of ours")
}

// panicking is a handler of a program that panics.
type panicking struct{ slog.Handler }

func (panicking) Enabled(context.Context, slog.Level) bool  { panic(errors.New("enough")) }
func (p panicking) WithAttrs([]slog.Attr) slog.Handler      { return p }
func (p panicking) WithGroup(string) slog.Handler           { return p }
func (panicking) Handle(context.Context, slog.Record) error { panic("never called") }

func TestAPanicOfTheProgramsLoggerIsNotTheDrivers(t *testing.T) {
	s := &source{host: panicking{}}
	h := new(Handler)
	h.Init(s, "build", 1, 100)
	err := h.Handle(t.Context(), slog.NewRecord(time.Time{}, slog.LevelInfo, "m", 0))
	require.EqualError(t, err, "logger panicked: enough")
	require.Len(t, s.kept, 1)
	require.False(t, s.kept[0].Time.IsZero(), "a line without a time gets the present one")
}

// logsItself is a value that logs a line while it is rendered.
type logsItself struct{ log *slog.Logger }

func (v logsItself) LogValue() slog.Value {
	v.log.Info("inner", "k", 1)
	return slog.StringValue("outer value")
}

func TestAValueMayLogWhileItIsRendered(t *testing.T) {
	s := new(source)
	log := newLogger(s, 100)
	log.Info("outer", "v", logsItself{log})
	require.Len(t, s.kept, 2)
	require.Equal(t, "inner", s.kept[0].Message)
	require.JSONEq(t, `{"k":1}`, string(s.kept[0].Attrs))
	require.Equal(t, "outer", s.kept[1].Message)
	require.JSONEq(t, `{"v":"outer value"}`, string(s.kept[1].Attrs))
}

func TestFollowersAreWokenByTheirRunAlone(t *testing.T) {
	var f Followers
	f.Wake("nobody follows")
	one, other, second := f.Follow("a"), f.Follow("b"), f.Follow("a")
	require.Same(t, one, second)
	newsA, newsB := f.News(one), f.News(other)
	f.Wake("a")
	<-newsA
	select {
	case <-newsB:
		t.Fatal("woken by another run")
	case <-f.News(one):
		t.Fatal("woken twice by one call")
	default:
	}
	f.Unfollow("a", one)
	require.Same(t, one, f.Follow("a"), "another reader follows it still")
	f.Unfollow("a", one)
	f.Unfollow("a", one)
	f.Unfollow("b", other)
	require.Empty(t, f.runs)
}
