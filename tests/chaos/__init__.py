"""Kills, stops and orders at random under load, and exact accounts of what came of it."""
