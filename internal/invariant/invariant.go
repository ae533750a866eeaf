// Package invariant walks over the records of a store, and tells whether somebody would look at each unfinished run, and whether
// something is left when all runs have ended. Only tests import it.
package invariant

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/shortlived"
	"github.com/conveyor-go/conveyor/store"
)

// Broken returns the unfinished runs that nobody would look through, and why.
func Broken(kept map[string]store.Record) (broken []string) {
	all := make(map[string]store.Record, len(kept))
	for key, r := range kept {
		all[shortlived.Plain(key)] = r
	}
	decode := func(key string, into any) bool {
		r, ok := all[key]
		return ok && record.Decode(r, into) == nil
	}
	ready := map[string][]record.Ready{}
	for key := range all {
		if e, err := record.ParseReadyKey(key); err == nil {
			ready[e.Run] = append(ready[e.Run], e)
		}
	}
	for key := range all {
		if pipeline, number, isSlot := strings.Cut(strings.TrimPrefix(key, record.SlotPrefix), "/"); strings.HasPrefix(key, record.SlotPrefix) && isSlot {
			var of record.Run
			slot, _ := record.ParseNumber(number)
			if !decode(record.RunKey(string(all[key].Value)), &of) || of.State.Final() || of.Slot != slot || of.Pipeline != pipeline {
				broken = append(broken, key+" is the place of no run that has it")
			}
		}
		id, is := strings.CutPrefix(key, record.ActivePrefix)
		if !is {
			continue
		}
		var rec record.Run
		if !decode(record.RunKey(id), &rec) || rec.State.Final() {
			broken = append(broken, id+" is listed, and no unfinished run")
			continue
		}
		if _, taken := all[record.SlotKey(rec.Pipeline, rec.Slot)]; rec.Slot != 0 && !taken {
			broken = append(broken, id+" has a place that is free")
		}
		if rec.Owner != "" {
			var of record.Engine
			if !decode(record.EngineKey(rec.Owner), &of) {
				broken = append(broken, id+" is owned by an engine that is not on record")
			}
			if _, listed := all[record.OwnedKey(rec.Owner, id)]; !listed {
				broken = append(broken, id+" is not listed under its owner")
			}
			continue
		}
		var head record.Resource
		if !decode(record.ResourceKey(rec.Key()), &head) {
			broken = append(broken, id+" has no resource")
			continue
		}
		if rec.State == plan.Queued && (head.Active != "" || head.Pending != id && head.Pending != "") {
			continue // it stands in line
		}
		if len(ready[id]) == 0 {
			broken = append(broken, fmt.Sprintf("%s has no owner, is %s, and is in no index", id, rec.State))
		}
		lane := record.Lane(head.Pipeline, rec.Key())
		if head.FixedGeneration != 0 {
			var of record.Revision
			if decode(record.RevisionKey(rec.Key(), head.FixedGeneration), &of) {
				lane = record.Lane(of.Pipeline, rec.Key())
			}
		}
		for _, e := range ready[id] {
			if rec.State == plan.Queued && e.Driver == "" && e.Lane != record.Urgent && e.Lane != lane {
				broken = append(broken, id+" is in the wrong lane")
			}
		}
	}
	return broken
}

// Unrest returns what the records say is under way or waits, when all runs have ended. Of a store of any kind, it looks at the listed runs
// and at the resources.
func Unrest(kept map[string]store.Record) (left []string) {
	for key, r := range kept {
		switch key = shortlived.Plain(key); {
		case strings.HasPrefix(key, record.ActivePrefix):
			left = append(left, key+": a run that has ended is still listed as unfinished")
		case strings.HasPrefix(key, record.ResourcePrefix):
			var head struct{ Active, Pending string }
			if err := json.Unmarshal(r.Value, &head); err != nil || head.Active != "" || head.Pending != "" {
				left = append(left, fmt.Sprintf("%s: run %q is active, and run %q is pending (%v)", key, head.Active, head.Pending, err))
			}
		}
	}
	return left
}
