"""Procedural robotics tabletops: scenes, renders, referring expressions and the data sets made from them."""
